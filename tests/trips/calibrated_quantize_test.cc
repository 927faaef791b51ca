// Calibrated quantization end to end: what it gains, that threads and kills change no byte, what it refuses.
#include <chrono>
#include <cstring>
#include <fstream>

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/inspect.h"
#include "kedge/quantize.h"
#include "model/family.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::folder_content;
using trips::TemporaryFolder;

const fs::path text = fs::path(KEDGE_SOURCE_DIR) / "models/demo-text.txt";

QuantizeOptions options_for(const fs::path& source, const fs::path& destination, const std::string& method,
                            bool router_refit) {
  set_quiet(true);
  QuantizeOptions options;
  options.source = source;
  options.destination = destination;
  options.scheme = "w3a16-g128";
  options.method = method;
  options.router_refit = router_refit;
  options.calibration.nsamples = 16;
  options.calibration.seqlen = 128;
  options.threads = 2;
  return options;
}

struct Outcome {
  double changed = 0;  ///< 1 - Jaccard
  double kld = 0;
};

Outcome audited(const fs::path& quantized, int sequences = 16) {
  AuditOptions options;
  options.original = trips::kDemo;
  options.quantized = quantized;
  options.texts = {text};
  options.seqlen = 128;
  options.limit = sequences;
  options.runtime.threads = 2;
  const AuditReport report = audit(options);
  const AuditMetrics& mean = report.comparisons.front().mean;
  return {1 - metric(mean, "jaccard").mean, metric(mean, "kld").mean};
}

Outcome quantized_by(const std::string& method, bool router_refit) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", method, router_refit);
  options.calibration.nsamples = 64;
  quantize(options);
  return audited(folder / "q");
}

TEST(CalibratedQuantize, EachStepKeepsMoreTokensWithTheirExperts) {
  const Outcome rtn = quantized_by("rtn", false), refitted = quantized_by("rtn", true);
  const Outcome gptq = quantized_by("gptq", false), gptaq = quantized_by("gptaq", true);
  const Outcome best = quantized_by("auto", true);
  EXPECT_LT(refitted.changed, 0.85 * rtn.changed);
  EXPECT_LT(gptq.changed, 0.8 * rtn.changed);
  EXPECT_LT(gptaq.changed, 0.95 * gptq.changed);
  EXPECT_LT(best.changed, 0.85 * gptaq.changed);
  EXPECT_LT(gptq.kld, 0.7 * rtn.kld);
  EXPECT_LT(gptaq.kld, 1.05 * gptq.kld);
  EXPECT_LT(best.kld, 0.8 * gptaq.kld);
}

// Folded scales, and with them clipped ranges, which the paper's AWQ has too.
TEST(CalibratedQuantize, AwqBeatsRoundToNearest) {
  const TemporaryFolder folder;
  const auto outcome = [&](const std::string& method, const std::string& scale_search) {
    QuantizeOptions options = options_for(trips::kDemo, folder / (method + scale_search), method, false);
    options.scale_search = scale_search;
    options.calibration.nsamples = 64;
    quantize(options);
    return audited(options.destination, 64);
  };
  const Outcome rtn = outcome("rtn", "minmax"), awq = outcome("awq", "minmax"), clipped = outcome("awq", "mse");
  EXPECT_LT(awq.changed, 0.99 * rtn.changed);
  EXPECT_LT(awq.kld, 0.96 * rtn.kld);
  EXPECT_LT(clipped.changed, 0.85 * rtn.changed);
  EXPECT_LT(clipped.kld, 0.75 * rtn.kld);
}

TEST(CalibratedQuantize, FoldedNormsAndRoutersAreStored) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "awq", false);
  quantize(options);
  const Checkpoint source = Checkpoint::open(trips::kDemo), quantized = Checkpoint::open(folder / "q");
  const Json manifest = read_json(folder / "q" / "kedge.manifest.json");
  int norms = 0;
  for (const Json& layer : manifest["layers"]) {
    for (const auto& [producer, fold] : layer["folds"].items()) {
      if (!producer.ends_with("layernorm.weight")) continue;
      const TensorView before = source.tensor(producer), after = quantized.tensor(producer);
      ASSERT_EQ(before.dtype, after.dtype);
      const bool moved = std::memcmp(before.data, after.data, before.num_bytes()) != 0;
      EXPECT_EQ(moved, fold["error"].get<double>() < 1) << producer;
      norms += moved ? 1 : 0;
    }
  }
  EXPECT_GT(norms, 0);
}

class CalibratedFamilies : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

// The goldens' models have a vocabulary of 256 and no tokenizer: bytes serve.
TEST_P(CalibratedFamilies, SameBytesWithAnyThreads) {
  const auto [family, method] = GetParam();
  const TemporaryFolder folder;
  fs::copy(trips::kGoldens + std::string(family), folder / "source");
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json", folder / "source" / "tokenizer.json");
  for (const int threads : {1, 3}) {
    QuantizeOptions options = options_for(folder / "source", folder / std::to_string(threads), method, true);
    options.scheme = "w4a16-g32";
    options.calibration.nsamples = 8;
    options.calibration.seqlen = 32;
    options.threads = threads;
    options.cache_dir = threads == 1 ? fs::path() : folder.path();
    quantize(options);
  }
  EXPECT_TRUE(folder_content(folder / "1") == folder_content(folder / "3"));
  const Json manifest = read_json(folder / "1" / "kedge.manifest.json");
  ASSERT_TRUE(manifest.contains("layers"));
  int routers = 0;
  for (const Json& layer : manifest["layers"]) {
    EXPECT_GT(layer["state_error"].get<double>(), 0);
    if (!layer.contains("router_refit")) continue;
    ++routers;
    EXPECT_GE(layer["router_refit"]["agreement_after"].get<double>(),
              layer["router_refit"]["agreement_before"].get<double>());
  }
  EXPECT_GT(routers, 0);
}
INSTANTIATE_TEST_SUITE_P(All, CalibratedFamilies,
                         testing::Combine(testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                                          testing::Values("awq", "gptq", "gptaq", "kedge")));

class CalibratedKill : public testing::TestWithParam<const char*> {};

TEST_P(CalibratedKill, RunAgainGivesTheSameBytes) {
  const TemporaryFolder folder;
  const auto call = [&](const std::string& name) {
    trips::Call call;
    call.arguments = {"quantize",   trips::kDemo, (folder / name).string(), "--scheme",  "w3a16-g128", "--method",
                      GetParam(),   "--router-refit", "on",             "--nsamples", "8",          "--seqlen", "128",
                      "--threads",  "2",          "--quiet"};
    return call;
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result undisturbed = trips::run(call("whole"));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = folder_content(folder / "whole");
  Rng rng(21);
  int killed = 0;
  for (int round = 0; round < 6; ++round) {
    const std::string name = "killed-" + std::to_string(round);
    trips::Call first = call(name);
    first.kill_after =
        std::chrono::microseconds(1 + static_cast<std::int64_t>((round + rng.uniform()) / 6 * double(took.count())));
    killed += trips::run(first).exit_code == 128 + SIGKILL ? 1 : 0;
    // Killed after the rename but before the last file went, the folder is there and a run removes that file.
    if (!fs::exists(folder / name) || folder_content(folder / name) != expected) {
      const trips::Result second = trips::run(call(name));
      ASSERT_EQ(second.exit_code, 0) << second.err;
    }
    EXPECT_TRUE(folder_content(folder / name) == expected) << "round " << round;
    EXPECT_FALSE(fs::exists((folder / name).string() + ".partial"));
  }
  EXPECT_GE(killed, 3);
}
INSTANTIATE_TEST_SUITE_P(All, CalibratedKill, testing::Values("kedge", "awq"));

TEST(CalibratedQuantize, BalanceGivesRareExpertsTokens) {
  const TemporaryFolder folder;
  // What the choice minimizes, but for tau (ptq/balance.h): an expert's variance goes as 1 / tokens.
  const auto variance = [&](bool balance) {
    QuantizeOptions options = options_for(trips::kDemo, folder / (balance ? "balanced" : "plain"), "gptq", false);
    options.calibration.balance = balance;
    quantize(options);
    double sum = 0;
    const Json manifest = read_json(options.destination / "kedge.manifest.json");
    for (const Json& layer : manifest["layers"]) {
      for (const Json& tokens : layer["expert_tokens"]) sum += 1.0 / (1.0 + tokens.get<double>());
    }
    return sum;
  };
  const double plain = variance(false), balanced = variance(true);
  EXPECT_LT(balanced, 0.95 * plain);
}

void expect_refusal(const QuantizeOptions& options, ErrorCode code, const std::string& words) {
  try {
    quantize(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    EXPECT_FALSE(fs::exists(options.destination));
    return;
  }
  ADD_FAILURE() << "no error: " << words;
}

TEST(CalibratedQuantize, RefusesWhatCannotWork) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "gptq", false);
  trips::spit(folder / "empty.txt", "");
  options.calibration.files = {folder / "empty.txt"};
  expect_refusal(options, ErrorCode::usage, "empty.txt");
  options = options_for(trips::kDemo, folder / "q", "gptq", false);
  options.calibration.seqlen = 5000;
  expect_refusal(options, ErrorCode::usage, "1024");
  options = options_for(trips::kDemo, folder / "q", "gptq", false);
  options.expert_fallback = "error";
  options.min_expert_tokens = 100000;
  expect_refusal(options, ErrorCode::usage, "calibration tokens");
  fs::remove_all((folder / "q").string() + ".partial");
  options = options_for(trips::kDemo, folder / "q", "gptq", false);
  options.cache_dir = folder / "missing";
  expect_refusal(options, ErrorCode::io, "missing");
  options = options_for(trips::kDemo, folder / "q", "rtn-mse", false);
  options.scale_search = "full-range";
  expect_refusal(options, ErrorCode::usage, "finds its scales by itself");
  options = options_for(trips::kDemo, folder / "q", "rtn", false);
  options.scale_search = "row-search";
  expect_refusal(options, ErrorCode::usage, "no error feedback");
}

TEST(CalibratedQuantize, ScaleSearchIsRoundToNearestsToo) {
  const TemporaryFolder folder;
  for (const char* search : {"minmax", "full-range"}) {
    QuantizeOptions options = options_for(trips::kDemo, folder / search, "rtn", false);
    options.scale_search = search;
    quantize(options);
  }
  EXPECT_NE(trips::slurp(folder / "minmax/model.safetensors"), trips::slurp(folder / "full-range/model.safetensors"));
}

// A template that kedge lacks matters to chats alone.
TEST(CalibratedQuantize, PlainTextNeedsNoChatTemplate) {
  const TemporaryFolder folder;
  fs::copy(trips::kDemo, folder / "source");
  trips::spit(folder / "source/chat_template.jinja", "{% call m() %}{% endcall %}");
  QuantizeOptions options = options_for(folder / "source", folder / "q", "gptq", false);
  options.calibration.nsamples = 2;
  options.calibration.files = {text};
  quantize(options);
  trips::spit(folder / "chat.jsonl", R"({"messages": [{"role": "user", "content": "hello"}]})");
  options.calibration.files = {folder / "chat.jsonl"};
  options.calibration.field = "messages";
  options.destination = folder / "q2";
  expect_refusal(options, ErrorCode::unsupported, "chat templates lack");
}

// transformers may save a Mixtral under its own names or under those that its layers have in memory.
TEST(CalibratedQuantize, CanonicalNamesGiveTheSameModel) {
  const TemporaryFolder folder;
  fs::copy(trips::kGoldens + "mixtral", folder / "file");
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json", folder / "file/tokenizer.json");
  fs::copy(folder / "file", folder / "canonical");
  const Checkpoint source = Checkpoint::open(folder / "file");
  const ModelFamily& family = family_of(source.config(), "config.json");
  std::map<std::string, Tensor> renamed;
  int changed = 0;
  for (const TensorInfo& info : source.tensors()) {
    const TensorView view = source.tensor(info.name);
    Tensor tensor(view.dtype, view.shape);
    std::memcpy(tensor.data<std::byte>(), view.data, view.num_bytes());
    const std::string name = to_canonical_name(family, info.name);
    changed += name == info.name ? 0 : 1;
    renamed.emplace(name, std::move(tensor));
  }
  ASSERT_GT(changed, 0);
  write_safetensors(folder / "canonical/model.safetensors", renamed);
  EXPECT_EQ(inspect(folder / "canonical").parameters, inspect(folder / "file").parameters);
  for (const std::string method : {"kedge", "awq"}) {
    for (const char* names : {"file", "canonical"}) {
      QuantizeOptions options = options_for(folder / names, folder / (names + method), method, true);
      options.scheme = "w4a16-g32";
      options.calibration.nsamples = 8;
      options.calibration.seqlen = 32;
      quantize(options);
    }
    EXPECT_TRUE(trips::slurp(folder / ("file" + method) / "model.safetensors") ==
                trips::slurp(folder / ("canonical" + method) / "model.safetensors"))
        << method;
  }
}

// NaN where nothing is quantized: named, not a bug of kedge.
TEST(CalibratedQuantize, NanBehindTheLayersIsABadFile) {
  const TemporaryFolder folder;
  fs::copy(trips::kDemo, folder / "source");
  const Checkpoint source = Checkpoint::open(trips::kDemo);
  std::map<std::string, Tensor> tensors;
  for (const TensorInfo& info : source.tensors()) {
    const TensorView view = source.tensor(info.name);
    Tensor tensor(view.dtype, view.shape);
    std::memcpy(tensor.data<std::byte>(), view.data, view.num_bytes());
    if (info.name == "model.norm.weight") std::memset(tensor.data<std::byte>(), 0xFF, 2);
    tensors.emplace(info.name, std::move(tensor));
  }
  write_safetensors(folder / "source/model.safetensors", tensors);
  expect_refusal(options_for(folder / "source", folder / "q", "kedge", true), ErrorCode::bad_file, "NaN");
}

}  // namespace
}  // namespace kedge
