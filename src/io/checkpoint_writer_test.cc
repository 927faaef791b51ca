#include "io/checkpoint_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <thread>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/test_files.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using Entry = SafetensorsWriter::Entry;

std::vector<ShardPlan> three_shards() {
  return {{{{"a.weight", DType::f32, {4}}, {"b.weight", DType::u8, {3}}}},
          {{{"c.weight", DType::bf16, {2, 2}}}},
          {{{"d.weight", DType::f32, {1}}, {"e.weight", DType::f32, {2}}}}};
}

/// The bytes of an entry depend on its name only.
void produce(const Entry& entry, const CheckpointWriter::Sink& sink) {
  const std::string data(static_cast<std::size_t>(entry_bytes(entry)), entry.name[0]);
  sink(data.data(), data.size());
}

struct Killed {};

/// Writes what is left; throws Killed at the `stop`-th entry (-1: never).
void run(const fs::path& destination, int stop = -1, std::vector<ShardPlan> plan = three_shards()) {
  CheckpointWriter writer(destination, std::move(plan), "plan-1");
  writer.write_file("config.json", "{}");
  int count = 0;
  for (std::size_t i = 0; i < writer.num_shards(); ++i) {
    if (writer.is_done(i)) continue;
    writer.write_shard(i, [&](const Entry& entry, const CheckpointWriter::Sink& sink) {
      if (count++ == stop) throw Killed{};
      produce(entry, sink);
    });
    EXPECT_TRUE(writer.is_done(i));
  }
  writer.finish();
}

std::map<std::string, std::string> content(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

TEST(CheckpointWriter, WritesWhatCheckpointReads) {
  const TempFolder folder;
  run(folder / "out");
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
  const Checkpoint checkpoint = Checkpoint::open(folder / "out");
  EXPECT_EQ(checkpoint.tensors().size(), 5u);
  EXPECT_EQ(checkpoint.tensor("b.weight").data[2], std::byte{'b'});
  const Json index = read_json(folder / "out" / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 16 + 3 + 8 + 4 + 8);
  EXPECT_EQ(index["weight_map"]["d.weight"], "model-00003-of-00003.safetensors");
  const auto files = content(folder / "out");
  EXPECT_EQ(files.size(), 5u);  // three shards, index, config
  EXPECT_FALSE(files.contains("progress.json"));
}

TEST(CheckpointWriter, OneShardNeedsNoIndex) {
  const TempFolder folder;
  run(folder / "out/", -1, {{{{"a.weight", DType::f32, {4}}}}});
  const auto files = content(folder / "out");
  EXPECT_EQ(files.size(), 2u);
  EXPECT_TRUE(files.contains("model.safetensors"));
}

TEST(CheckpointWriter, ResumesToTheSameBytes) {
  const TempFolder folder;
  run(folder / "whole");
  for (int stop = 0; stop < 5; ++stop) {
    const fs::path out = folder / ("out" + std::to_string(stop));
    EXPECT_THROW(run(out, stop), Killed);
    EXPECT_FALSE(fs::exists(out));
    run(out);
    EXPECT_EQ(content(out), content(folder / "whole")) << "stopped at " << stop;
  }
}

TEST(CheckpointWriter, ResumesAfterEveryFailureInARow) {
  const TempFolder folder;
  run(folder / "whole");
  for (const int stop : {0, 1, 0, 2, 0, 1}) {
    if (fs::exists(folder / "out")) break;
    EXPECT_THROW(run(folder / "out", stop), Killed);
    if (stop == 2) break;
  }
  run(folder / "out");
  EXPECT_EQ(content(folder / "out"), content(folder / "whole"));
}

TEST(CheckpointWriter, SkipsFinishedShardsAndDropsLeftovers) {
  const TempFolder folder;
  EXPECT_THROW(run(folder / "out", 3), Killed);
  const fs::path partial = folder / "out.partial";
  // What a kill (rather than an exception) leaves behind.
  std::ofstream(partial / "model-00003-of-00003.safetensors.tmp-4711") << "half";
  CheckpointWriter writer(folder / "out", three_shards(), "plan-1");
  EXPECT_FALSE(fs::exists(partial / "model-00003-of-00003.safetensors.tmp-4711"));
  EXPECT_TRUE(writer.is_done(0));
  EXPECT_TRUE(writer.is_done(1));
  EXPECT_FALSE(writer.is_done(2));
  EXPECT_FALSE(fs::exists(partial / writer.shard_name(2)));
}

TEST(CheckpointWriter, RewritesAShardThatHasChanged) {
  const TempFolder folder;
  run(folder / "whole");
  EXPECT_THROW(run(folder / "out", 3), Killed);
  std::ofstream(folder / "out.partial" / "model-00001-of-00003.safetensors", std::ios::app) << "x";
  fs::remove(folder / "out.partial" / "model-00002-of-00003.safetensors");
  run(folder / "out");
  EXPECT_EQ(content(folder / "out"), content(folder / "whole"));
}

TEST(CheckpointWriter, ResumesAKillAfterTheRename) {
  const TempFolder folder;
  run(folder / "whole");
  {
    CheckpointWriter writer(folder / "out", three_shards(), "plan-1");
    for (std::size_t i = 0; i < 3; ++i) writer.write_shard(i, produce);
    writer.write_file("config.json", "{}");
    const std::string progress = read_file(folder / "out.partial" / "progress.json");
    writer.finish();
    write_file_atomically(folder / "out" / "progress.json", progress);
  }
  expect_error(ErrorCode::exists, "not empty", [&] { CheckpointWriter(folder / "out", three_shards(), "plan-2"); });
  run(folder / "out");
  EXPECT_EQ(content(folder / "out"), content(folder / "whole"));
}

TEST(CheckpointWriter, ResumesAKillRightAtTheStart) {
  const TempFolder folder;
  fs::create_directories(folder / "out.partial");
  std::ofstream(folder / "out.partial" / "progress.json.tmp-12") << "{";
  run(folder / "out");
  EXPECT_EQ(content(folder / "out").size(), 5u);
}

TEST(CheckpointWriter, RefusesToOverwrite) {
  const TempFolder folder;
  folder.write("file", "x");
  expect_error(ErrorCode::exists, "is no folder", [&] { run(folder / "file"); });
  fs::create_directories(folder / "full");
  write_file_atomically(folder / "full" / "precious", "x");
  expect_error(ErrorCode::exists, "is not empty", [&] { run(folder / "full"); });
  EXPECT_EQ(content(folder / "full").size(), 1u);

  EXPECT_THROW(run(folder / "out", 1), Killed);
  expect_error(ErrorCode::exists, "another source or recipe",
               [&] { CheckpointWriter(folder / "out", three_shards(), "plan-2"); });
  fs::create_directories(folder / "own.partial");
  write_file_atomically(folder / "own.partial" / "precious", "x");
  expect_error(ErrorCode::exists, "own.partial", [&] { run(folder / "own"); });
  EXPECT_EQ(content(folder / "own.partial").size(), 1u);

  fs::create_directories(folder / "empty");
  run(folder / "empty");
  EXPECT_EQ(content(folder / "empty").size(), 5u);
}

TEST(CheckpointWriter, OneWriterAtATime) {
  const TempFolder folder;
  const CheckpointWriter first(folder / "out", three_shards(), "plan-1");
  expect_error(ErrorCode::exists, "another process",
               [&] { CheckpointWriter(folder / "out", three_shards(), "plan-1", std::chrono::milliseconds(100)); });
}

TEST(CheckpointWriter, WaitsForALockThatGoes) {
  const TempFolder folder;
  auto first = std::make_unique<CheckpointWriter>(folder / "out", three_shards(), "plan-1");
  std::thread killed([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(120));
    first.reset();
  });
  run(folder / "out");
  killed.join();
  EXPECT_EQ(content(folder / "out").size(), 5u);
}

TEST(CheckpointWriter, SaysWhenThereIsNoSpace) {
  const TempFolder folder;
  std::vector<ShardPlan> plan{{{{"a.weight", DType::f32, {std::int64_t{1} << 55}}}}};
  expect_error(ErrorCode::io, "not enough space", [&] { CheckpointWriter(folder / "out", plan, "p"); });
}

TEST(CheckpointWriter, RefusesATensorTwice) {
  const TempFolder folder;
  std::vector<ShardPlan> plan{{{{"a", DType::f32, {1}}}}, {{{"a", DType::f32, {1}}}}};
  expect_error(ErrorCode::bad_file, "written twice", [&] { CheckpointWriter(folder / "out", plan, "p"); });
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(CheckpointWriter, CopiesSideFiles) {
  const TempFolder folder;
  folder.write("tokenizer.json", "{\"x\":1}");
  CheckpointWriter writer(folder / "out", {{{{"a.weight", DType::f32, {4}}}}}, "p");
  writer.copy_file(folder / "tokenizer.json");
  writer.write_shard(0, produce);
  writer.finish();
  EXPECT_EQ(read_file(folder / "out" / "tokenizer.json"), "{\"x\":1}");
  expect_error(ErrorCode::not_found, "nothing.json", [&] { writer.copy_file(folder / "nothing.json"); });
}

}  // namespace
}  // namespace kedge
