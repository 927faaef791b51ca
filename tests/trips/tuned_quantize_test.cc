// Methods that tune by gradients, end to end: kedge hands over, what is gained, kills and repetition change no byte.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/quantize.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::folder_content;
using trips::TemporaryFolder;

TEST(TunedQuantize, WithoutKedgeTorchNamesTheCommandThatBuildsIt) {
  const TemporaryFolder folder;
  fs::copy_file(KEDGE_BINARY, folder / "kedge");
  trips::Call call;
  call.program = (folder / "kedge").string();
  call.arguments = {"quantize", trips::kDemo, (folder / "q").string(), "--method", "autoround"};
  const trips::Result result = trips::run(call);
  EXPECT_EQ(result.exit_code, static_cast<int>(ErrorCode::not_found));
  EXPECT_NE(result.err.find("make torch"), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(folder / "q"));
  // A plan needs no gradients.
  call.arguments = {"quantize", trips::kDemo, "--method", "vsraq", "--dry-run"};
  EXPECT_EQ(trips::run(call).exit_code, 0);
}

TEST(TunedQuantize, RefusesWhatIsMalformed) {
  const auto expect = [](const std::vector<std::string>& flags, const std::string& words) {
    std::vector<std::string> arguments = {"quantize", trips::kDemo, "--dry-run", "--method", "vsraq"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const trips::Result result = trips::run(arguments);
    EXPECT_EQ(result.exit_code, static_cast<int>(ErrorCode::usage)) << flags.back();
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  };
  expect({"--objective", "mse=1,magic=2"}, "magic");
  expect({"--objective", "value=1"}, "no mse");
  expect({"--objective", "mse=1,mse=2"}, "twice");
  expect({"--objective", "mse"}, "malformed");
  expect({"--objective", "mse=-1"}, "malformed");
  expect({"--router", "other"}, "other");
  expect({"--base", "other"}, "other");
  expect({"--lr", "2"}, "lr");
}

TEST(TunedQuantize, TheLibraryWithoutATunerSaysSo) {
  const TemporaryFolder folder;
  QuantizeOptions options;
  options.source = trips::kDemo;
  options.destination = folder / "q";
  options.method = "autoround";
  try {
    quantize(options);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
}

#ifdef KEDGE_TORCH_BINARY
trips::Call call_for(const std::string& method, const fs::path& source, const fs::path& destination,
                     const std::vector<std::string>& more) {
  trips::Call call;
  call.arguments = {"quantize", source.string(), destination.string(),
                    "--scheme", "w3a16-g128",    "--method",
                    method,     "--nsamples",    "16",
                    "--seqlen", "128",           "--threads",
                    "1",        "--quiet"};
  call.arguments.insert(call.arguments.end(), more.begin(), more.end());
  return call;
}

struct Outcome {
  double changed = 0;  ///< 1 - Jaccard
  double kld = 0;
};

Outcome audited(const fs::path& quantized) {
  set_quiet(true);
  AuditOptions options;
  options.original = trips::kDemo;
  options.quantized = quantized;
  options.texts = {fs::path(KEDGE_SOURCE_DIR) / "models/demo-text.txt"};
  options.seqlen = 128;
  options.limit = 16;
  options.runtime.threads = 2;
  const AuditReport report = audit(options);
  const AuditMetrics& mean = report.comparisons.front().mean;
  return {1 - metric(mean, "jaccard").mean, metric(mean, "kld").mean};
}

TEST(TunedQuantize, TuningKeepsMoreTokensWithTheirExperts) {
  const TemporaryFolder folder;
  const auto quantized_by = [&](const std::string& method, const std::vector<std::string>& more) {
    const trips::Result result = trips::run(call_for(method, trips::kDemo, folder / method, more));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return audited(folder / method);
  };
  const Outcome rtn = quantized_by("rtn", {});
  const Outcome autoround = quantized_by("autoround", {"--iters", "30"});
  const Outcome vsraq = quantized_by("vsraq", {"--iters", "30", "--router-refit", "on"});
  EXPECT_LT(autoround.changed, 0.8 * rtn.changed);
  EXPECT_LT(autoround.kld, 0.6 * rtn.kld);
  EXPECT_LT(vsraq.changed, 0.95 * autoround.changed);
  EXPECT_LT(vsraq.kld, 1.1 * autoround.kld);

  // What was audited has negative scales, and shapes and types of rtn's.
  const Checkpoint tuned = Checkpoint::open(folder / "autoround"), plain = Checkpoint::open(folder / "rtn");
  ASSERT_EQ(tuned.tensors().size(), plain.tensors().size());
  for (std::size_t i = 0; i < tuned.tensors().size(); ++i) {
    EXPECT_EQ(tuned.tensors()[i].name, plain.tensors()[i].name);
    EXPECT_EQ(tuned.tensors()[i].dtype, plain.tensors()[i].dtype);
    EXPECT_EQ(tuned.tensors()[i].shape, plain.tensors()[i].shape);
  }
  const WeightData q = tuned.weight("model.layers.0.self_attn.q_proj", 128, 128);
  const auto& scales = std::get<QuantTensor>(q).scales;
  EXPECT_TRUE(std::any_of(scales.begin(), scales.end(), [](float s) { return s < 0; }));
  const Json manifest = read_json(folder / "vsraq" / "kedge.manifest.json");
  EXPECT_EQ(manifest["recipe"]["router"], "both");
  EXPECT_EQ(manifest["recipe"]["router_refit"], true);
  EXPECT_TRUE(manifest["layers"][0].contains("tuning"));
}

TEST(TunedQuantize, KilledAndRunAgainGivesTheSameBytes) {
  const TemporaryFolder folder;
  const auto call = [&](const std::string& name) {
    return call_for("vsraq", trips::kDemo, folder / name, {"--iters", "6", "--router-refit", "on"});
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result undisturbed = trips::run(call("whole"));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = folder_content(folder / "whole");
  int killed = 0;
  for (const double part : {0.4, 0.7}) {
    const std::string name = "killed-" + std::to_string(part);
    trips::Call first = call(name);
    first.kill_after = std::chrono::microseconds(static_cast<std::int64_t>(part * double(took.count())));
    killed += trips::run(first).exit_code == 128 + SIGKILL ? 1 : 0;
    // Killed after the rename but before the last file went, the folder is there and a run removes that file.
    if (!fs::exists(folder / name) || folder_content(folder / name) != expected) {
      const trips::Result second = trips::run(call(name));
      ASSERT_EQ(second.exit_code, 0) << second.err;
    }
    EXPECT_TRUE(folder_content(folder / name) == expected) << part;
  }
  EXPECT_GE(killed, 1);
}

/// Sigmoid scores, groups and selection bias; the vocabulary of 256 takes bytes for tokens.
TEST(TunedQuantize, DeepseekUnderVsraq) {
  const TemporaryFolder folder;
  fs::copy(trips::kGoldens + "deepseek_v3", folder / "source");
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json",
                folder / "source" / "tokenizer.json");
  trips::Call call = call_for("vsraq", folder / "source", folder / "q", {"--iters", "4", "--base", "clipping"});
  call.arguments[4] = "w4a16-g32-asym";
  call.arguments[10] = "32";
  const trips::Result result = trips::run(call);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json manifest = read_json(folder / "q" / "kedge.manifest.json");
  ASSERT_GT(manifest["layers"].size(), 0u);
  for (const Json& layer : manifest["layers"]) EXPECT_GT(layer["tuning"]["terms"]["mse"]["best"].get<double>(), 0);
}
#endif

}  // namespace
}  // namespace kedge
