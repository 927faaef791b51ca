// The parts of the trainer by themselves: schedule, order of the data, Newton-Schulz, settings, checkpoints, log.
#include <cmath>
#include <numeric>
#include <set>

#include <ATen/Parallel.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "io/test_files.h"
#include "model/testing.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/log.h"
#include "train/masking.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/settings.h"
#include "twin/testing.h"

namespace kedge::training {
namespace {

using twin::testing::to_floats;
using twin::testing::to_integers;

TEST(Schedule, RisesThenFallsToTheLastRate) {
  for (const char* name : {"cosine", "linear"}) {
    const Schedule schedule{1.0, 0.1, 0.1, 100, parse_decay(name)};
    EXPECT_DOUBLE_EQ(schedule.at(1), 0.1);
    EXPECT_DOUBLE_EQ(schedule.at(10), 1.0);
    EXPECT_NEAR(schedule.at(55), 0.55, 1e-12) << name;
    EXPECT_NEAR(schedule.at(100), 0.1, 1e-12) << name;
    for (std::int64_t t = 11; t <= 100; ++t) EXPECT_LT(schedule.at(t), schedule.at(t - 1));
  }
  const Schedule flat{0.5, 0.1, 0.0, 10, Decay::constant};
  EXPECT_EQ(flat.at(1), 0.5);
  EXPECT_EQ(flat.at(10), 0.5);
  EXPECT_THROW(parse_decay("sudden"), Error);
}

std::vector<std::vector<std::int32_t>> numbered_rows(std::int32_t count) {
  std::vector<std::vector<std::int32_t>> rows;
  for (std::int32_t r = 0; r < count; ++r) rows.push_back({r, 100 + r});
  return rows;
}

TEST(Masking, RateAndWeightsAreThoseOfTheFormula) {
  constexpr std::int64_t kRows = 400, kLength = 64;
  const at::Tensor ids = at::full({kRows, kLength}, 5, at::kLong);
  const MaskedBatch batch = mask_tokens(ids, 9, 1, 0);
  const auto inputs = to_integers(batch.inputs);
  const std::vector<float> weights = to_floats(batch.weights);
  double masked = 0, total = 0;
  for (std::size_t r = 0; r < kRows; ++r) {
    float of_row = 0;
    for (std::size_t i = r * kLength; i < (r + 1) * kLength; ++i) {
      ASSERT_EQ(inputs[i], weights[i] > 0 ? 9 : 5);
      if (weights[i] == 0) continue;
      ASSERT_TRUE(of_row == 0 || of_row == weights[i]);  // one t per row
      of_row = weights[i];
      ++masked;
      total += weights[i];
    }
    ASSERT_TRUE(of_row == 0 || of_row >= 1.0f / kLength);  // t at most 1
  }
  EXPECT_NEAR(masked / (kRows * kLength), 0.5, 0.05);  // the mean of t
  EXPECT_NEAR(total / kRows, 1.0, 0.05);               // each row counts once, on average
  EXPECT_EQ(to_integers(mask_tokens(ids, 9, 1, 0).inputs), inputs);
  EXPECT_NE(to_integers(mask_tokens(ids, 9, 2, 0).inputs), inputs);
  // A row's masks are its own, whoever computes it.
  EXPECT_EQ(to_integers(mask_tokens(ids.narrow(0, 7, 5), 9, 1, 7).inputs), to_integers(batch.inputs.narrow(0, 7, 5)));
}

TEST(Masking, LossOfAUniformModelIsTheVocabularysLogarithm) {
  const at::Tensor ids = at::randint(0, 50, {300, 32}, at::kLong);
  const MaskedBatch batch = mask_tokens(ids, 50, 4, 0);
  const at::Tensor logits = at::zeros({300, 32, 51});
  EXPECT_NEAR(masked_loss(logits, ids, batch.weights).item<double>() / 300, std::log(51.0), 0.3);
}

TEST(Batches, TakeEachRowOncePerPassInAnOrderOfItsOwn) {
  const auto rows = numbered_rows(10);
  Batches batches(rows, 4, true, 1);
  std::vector<std::int64_t> seen;
  for (std::int64_t step = 1; step <= 5; ++step) {
    for (const std::int64_t row : batches.rows_of(step)) seen.push_back(row);
  }
  const std::vector<std::int64_t> first(seen.begin(), seen.begin() + 10), second(seen.begin() + 10, seen.end());
  EXPECT_EQ(std::set<std::int64_t>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set<std::int64_t>(second.begin(), second.end()).size(), 10u);
  EXPECT_NE(first, second);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  // No state but the step.
  Batches again(rows, 4, true, 1);
  EXPECT_EQ(again.rows_of(4), batches.rows_of(4));
  Batches other(rows, 4, true, 2);
  EXPECT_NE(other.rows_of(1), batches.rows_of(1));
  Batches plain(rows, 4, false, 1);
  EXPECT_EQ(plain.rows_of(3), (std::vector<std::int64_t>{8, 9, 0, 1}));
  EXPECT_EQ(to_integers(plain.at_step(3)), (std::vector<std::int32_t>{8, 108, 9, 109, 0, 100, 1, 101}));
}

TEST(Muon, NewtonSchulzBringsSingularValuesTogether) {
  for (const auto& shape : {std::vector<std::int64_t>{3, 12, 40}, {2, 40, 12}, {1, 16, 16}}) {
    const at::Tensor x = at::randn(shape) * 7, y = newton_schulz(x);
    const at::Tensor before = at::linalg_svdvals(x), after = at::linalg_svdvals(y);
    EXPECT_LT(after.max().item<double>(), 1.3);
    // What begins very small is not all the way up after five steps.
    EXPECT_GT(after.min().item<double>(), before.min().item<double>() / before.max().item<double>());
    EXPECT_GT(after.median().item<double>(), 0.6);
    EXPECT_EQ(y.sizes().vec(), shape);
    // Each matrix by itself.
    const at::Tensor alone = newton_schulz(x.narrow(0, 0, 1));
    EXPECT_LT((alone.select(0, 0) - y.select(0, 0)).abs().max().item<double>(), 1e-4);
  }
}

TrainOptions valid_options() {
  TrainOptions options;
  options.config = "config.json";
  options.tokenizer = "tokenizer.json";
  options.texts = {"text"};
  options.out = "out";
  return options;
}

TEST(Settings, OutOfRangeNamesTheOption) {
  check(valid_options());
  const auto expect = [](const char* name, auto change) {
    TrainOptions options = valid_options();
    change(options);
    expect_error(ErrorCode::usage, name, [&] { check(options); });
  };
  expect("lr", [](TrainOptions& o) { o.lr = -1; });
  expect("lr", [](TrainOptions& o) { o.lr = std::nan(""); });
  expect("beta2", [](TrainOptions& o) { o.beta2 = 1; });
  expect("warmup_ratio", [](TrainOptions& o) { o.warmup_ratio = 2; });
  expect("optimizer", [](TrainOptions& o) { o.optimizer = "sgd"; });
  expect("dtype", [](TrainOptions& o) { o.dtype = "float8"; });
  expect("schedule", [](TrainOptions& o) { o.schedule = "x"; });
  expect("--text", [](TrainOptions& o) { o.texts.clear(); });
  expect("--config", [](TrainOptions& o) { o.config.clear(); });
  expect("--tokenizer", [](TrainOptions& o) { o.tokenizer.clear(); });
  expect("--out", [](TrainOptions& o) { o.out.clear(); });
  expect("keep", [](TrainOptions& o) { o.keep = 0; });
}

TEST(Settings, AnotherRunsAreRefusedByName) {
  const Json config = {{"hidden_size", 8}};
  const Json ours = settings_json(valid_options(), config, ModelSpec{}, {"a", "b", ""}, "cpu");
  check_same_settings(ours, ours, "there");
  for (const auto& [key, value] : ours.items()) {
    Json other = ours;
    other[key] = "something else";
    expect_error(ErrorCode::mismatch, key, [&] { check_same_settings(other, ours, "there"); });
    other.erase(key);
    expect_error(ErrorCode::mismatch, key, [&] { check_same_settings(other, ours, "there"); });
    expect_error(ErrorCode::mismatch, key, [&] { check_same_settings(ours, other, "there"); });
  }
}

TEST(TrainingLog, DropsWhatFollowsTheCheckpointAndATornLine) {
  const TempFolder folder;
  const auto path = folder / "train.jsonl";
  {
    Log log(path, 0);
    for (int step = 1; step <= 4; ++step) log.write({{"step", step}, {"loss", 1.0 / step}});
  }
  folder.write("train.jsonl", read_file(path) + "{\"step\": 5, \"lo");
  EXPECT_EQ(read_log(path).size(), 4u);
  {
    Log(path, 2).write({{"step", 3}, {"loss", 7.0}});
  }
  const std::vector<Json> lines = read_log(path);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1]["loss"], 0.5);
  EXPECT_EQ(lines[2]["loss"], 7.0);
  {
    Log fresh(path, 0);
  }
  EXPECT_TRUE(read_log(path).empty());
}

TrainerSettings muon_settings() {
  TrainerSettings settings;
  settings.muon = true;
  return settings;
}

struct Model {
  explicit Model(const char* family)
      : directory(testing_model::golden_dir(family)), config(read_json(directory / "config.json")) {
    at::set_num_threads(1);
    const twin::Model first = twin::Model::load(Checkpoint::open(directory));
    trainer.emplace(first.spec(), first.parameters(), muon_settings(), twin::Options{});
  }
  StepResult step(std::int64_t t) {
    at::Tensor ids = at::arange(32, at::TensorOptions().dtype(at::kLong)).view({2, 16});
    return trainer->step(ids * (t + 1) % 256, 1e-2, t);
  }
  std::filesystem::path directory;
  Json config;
  std::optional<Trainer> trainer;
};

TEST(TrainingCheckpoint, GoesOnAsIfNothingHadHappened) {
  for (const char* family : {"mixtral", "deepseek_v3"}) {
    SCOPED_TRACE(family);
    const TempFolder out;
    Model model(family);
    for (std::int64_t t = 1; t <= 3; ++t) model.step(t);
    const ModelFiles files{model.config, {}};
    write_checkpoint(out.path(), *model.trainer, files, 3, {{"step", 3}});
    const double fourth = model.step(4).loss;

    std::filesystem::create_directories(out / "checkpoint-000009.partial");
    const auto found = newest_checkpoint(out.path());
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->step, 3);
    EXPECT_FALSE(std::filesystem::exists(out / "checkpoint-000009.partial"));
    EXPECT_EQ(read_state(*found)["step"], 3);
    const ModelSpec& spec = model.trainer->spec();
    Trainer resumed(spec, read_weights(found->path, spec, {}), muon_settings(), {});
    read_optimizer(*found, resumed.optimizer());
    at::Tensor ids = at::arange(32, at::TensorOptions().dtype(at::kLong)).view({2, 16});
    EXPECT_EQ(resumed.step(ids * 5 % 256, 1e-2, 4).loss, fourth);
    for (std::size_t i = 0; i < resumed.weights().trained().size(); ++i) {
      EXPECT_EQ(to_floats(resumed.weights().trained()[i].value),
                to_floats(model.trainer->weights().trained()[i].value));
    }
  }
}

TEST(TrainingCheckpoint, OfAnotherArchitectureIsRefused) {
  const TempFolder out;
  Model model("olmoe");
  const ModelFiles files{model.config, {}};
  write_checkpoint(out.path(), *model.trainer, files, 1, {{"step", 1}});
  const auto found = newest_checkpoint(out.path());
  Model other("qwen3_moe");
  expect_error(ErrorCode::mismatch, "olmoe", [&] { read_weights(found->path, other.trainer->spec(), {}); });
  expect_error(ErrorCode::bad_file, "momentum_buffer", [&] { read_optimizer(*found, other.trainer->optimizer()); });
}

TEST(TrainingCheckpoint, KeepsTheNewest) {
  const TempFolder out;
  Model model("mixtral");
  const ModelFiles files{model.config, {}};
  for (const std::int64_t step : {5, 10, 200})
    write_checkpoint(out.path(), *model.trainer, files, step, {{"step", step}});
  remove_old_checkpoints(out.path(), 2);
  EXPECT_FALSE(std::filesystem::exists(out / "checkpoint-000005"));
  EXPECT_TRUE(std::filesystem::exists(out / "checkpoint-000010"));
  EXPECT_EQ(newest_checkpoint(out.path())->step, 200);
}

TEST(TrainingCheckpoint, IsAModelDirectoryInTheFamilysNames) {
  const TempFolder out;
  Model model("mixtral");
  const ModelFiles files{model.config, {}};
  write_checkpoint(out.path(), *model.trainer, files, 1, {{"step", 1}});
  const Checkpoint checkpoint = Checkpoint::open(out / "checkpoint-000001");
  std::set<std::string> ours;
  for (const TensorInfo& info : checkpoint.tensors()) ours.insert(info.name);
  EXPECT_TRUE(ours.contains("model.layers.0.block_sparse_moe.experts.0.w1.weight"));
  EXPECT_EQ(checkpoint.config()["dtype"], "float32");
  write_model(out.path(), *model.trainer, files, "bfloat16");
  EXPECT_EQ(Checkpoint::open(out.path()).config()["dtype"], "bfloat16");
  EXPECT_EQ(Checkpoint::open(out.path()).tensor("model.norm.weight").dtype, DType::bf16);
}

}  // namespace
}  // namespace kedge::training
