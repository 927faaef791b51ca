// Experts on shared anchors end to end: what is written, that it opens and runs, that nothing disturbs it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/inspect.h"
#include "kedge/quantize.h"
#include "model/family.h"
#include "model/testing.h"
#include "nn/weight_source.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::folder_content;
using trips::TemporaryFolder;

QuantizeOptions options_for(const fs::path& source, const fs::path& destination, const std::string& scheme,
                            const std::string& method) {
  set_quiet(true);
  QuantizeOptions options;
  options.source = source;
  options.destination = destination;
  options.scheme = scheme;
  options.method = method;
  options.calibration.nsamples = 8;
  options.calibration.seqlen = 32;
  options.threads = 2;
  return options;
}

/// A golden model with a tokenizer of bytes, for calibration.
fs::path golden(const TemporaryFolder& folder, const std::string& family) {
  const fs::path to = folder / ("source-" + family);
  fs::copy(trips::kGoldens + family, to);
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json", to / "tokenizer.json");
  return to;
}

ErrorCode code_of(const QuantizeOptions& options, const std::string& words) {
  try {
    quantize(options);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error: " << words;
  return ErrorCode::usage;
}

std::vector<float> logits_of(const fs::path& model, const LoadOptions& load, int threads, std::size_t chunk = 0) {
  std::vector<std::int32_t> ids(40);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((i * 37 + 11) % 200);
  testing_model::Runner runner(Checkpoint::open(model), load, threads);
  return runner.sequence(ids, nullptr, chunk);
}

/// The same model with every expert's matrix as fp32 of its own.
void write_decoded(const fs::path& anchored, const fs::path& to) {
  const Checkpoint checkpoint = Checkpoint::open(anchored);
  const ModelSpec spec = model_spec(checkpoint);
  const ModelFamily& family = family_of(checkpoint.config(), "config.json");
  std::map<std::string, Tensor> tensors;
  Json config = checkpoint.config();
  const Json quant = config["quantization_config"];
  config.erase("quantization_config");
  for (const LinearRef& linear : list_linears(spec, family)) {
    Tensor w(DType::f32, {linear.rows, linear.cols});
    const std::span<float> values(w.data<float>(), static_cast<std::size_t>(w.size()));
    if (checkpoint.stack_shape(stack_name(linear))) {
      decode(checkpoint.stack(stack_name(linear)), linear.expert, values);
    } else {
      const Tensor plain = to_float_matrix(load_linear(checkpoint, linear), linear.module);
      std::copy_n(plain.data<float>(), plain.size(), values.data());
    }
    tensors[linear.module + ".weight"] = std::move(w);
  }
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const bool part = quant["stacks"].contains(tensor.name.substr(0, tensor.name.rfind('.'))) ||
                      tensor.name.find(".weight_") != std::string::npos;
    if (part || tensors.contains(tensor.name)) continue;
    const TensorView view = checkpoint.tensor(tensor.name);
    Tensor copy(view.dtype, view.shape);
    std::memcpy(copy.data<std::byte>(), view.data, view.num_bytes());
    tensors[tensor.name] = std::move(copy);
  }
  fs::create_directories(to);
  trips::spit(to / "config.json", config.dump());
  write_safetensors(to / "model.safetensors", tensors);
}

class AnchorFamilies : public testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {};

TEST_P(AnchorFamilies, RunsAsItsDecodedWeightsOnAnyIsaAndWithAnyThreads) {
  const auto [family, scheme, method] = GetParam();
  const TemporaryFolder folder;
  const fs::path source = golden(folder, family);
  for (const int threads : {1, 3}) {
    QuantizeOptions options = options_for(source, folder / std::to_string(threads), scheme, method);
    options.threads = threads;
    quantize(options);
  }
  ASSERT_TRUE(folder_content(folder / "1") == folder_content(folder / "3"));
  write_decoded(folder / "1", folder / "decoded");

  const std::vector<float> expected = logits_of(folder / "decoded", {Isa::scalar}, 1);
  const std::vector<float> own = logits_of(folder / "1", {Isa::scalar}, 1);
  float largest = 0, difference = 0;
  for (std::size_t i = 0; i < own.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    difference = std::max(difference, std::fabs(own[i] - expected[i]));
  }
  EXPECT_LT(difference, 1e-4f * largest);
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2, 3}) EXPECT_EQ(logits_of(folder / "1", {isa}, threads), own) << isa_name(isa);
    EXPECT_EQ(logits_of(folder / "1", {isa}, 2, 7), own) << isa_name(isa) << ", chunks";
  }
  const auto int8 = logits_of(folder / "1", {Isa::scalar, Numerics::consistent, Activations::int8}, 1);
  for (const Isa isa : available_isas()) {
    EXPECT_EQ(logits_of(folder / "1", {isa, Numerics::consistent, Activations::int8}, 2), int8) << isa_name(isa);
  }
}
INSTANTIATE_TEST_SUITE_P(All, AnchorFamilies,
                         testing::Values(std::tuple{"olmoe", "anchor-int4-g32", "kedge"},
                                         std::tuple{"qwen3_moe", "anchor-int4-g32-int8", "gptq"},
                                         std::tuple{"mixtral", "anchor-int2-g32-bf16-sphere", "rtn-mse"},
                                         std::tuple{"deepseek_v3", "anchor-int2-g32", "rtn"},
                                         std::tuple{"olmoe", "anchor-int4-g32-sphere", "gptq"}));

TEST(AnchorQuantize, HoldsWhatTheReportAndInspectSay) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "ANCHOR_INT4", "rtn");
  options.dry_run = true;
  const QuantizeReport plan = quantize(options);
  options.dry_run = false;
  const QuantizeReport report = quantize(options);
  EXPECT_EQ(report.scheme, "anchor-int4-g64");
  EXPECT_TRUE(report.kedge_only);
  EXPECT_EQ(plan.output_bytes, report.output_bytes);
  const auto experts = std::find_if(report.groups.begin(), report.groups.end(),
                                    [](const QuantizeGroup& group) { return group.role == "expert"; });
  ASSERT_NE(experts, report.groups.end());
  EXPECT_EQ(experts->scheme, "anchor-int4-g64");
  EXPECT_DOUBLE_EQ(experts->bits_per_weight(), 16.0 / 16 + 4 + 16.0 / 64);  // 16 experts share the anchor
  EXPECT_GT(experts->relative_rms_error.value(), 0.01);
  EXPECT_LT(experts->relative_rms_error.value(), 0.12);

  const InspectReport inspected = inspect(folder / "q");
  EXPECT_EQ(inspected.quant_format, "kedge/anchor-delta");
  EXPECT_EQ(inspected.parameters, inspect(trips::kDemo).parameters);
  bool seen = false;
  for (const InspectGroup& group : inspected.groups) {
    if (group.role != "expert") continue;
    seen = true;
    EXPECT_EQ(group.form, "anchor-int4-g64");
    EXPECT_EQ(group.bytes, experts->output_bytes);
  }
  EXPECT_TRUE(seen);
  const Json manifest = read_json(folder / "q" / "kedge.manifest.json");
  EXPECT_EQ(manifest["format"], "kedge/anchor-delta");
  ASSERT_EQ(manifest["layers"].size(), 4u);
  for (const Json& layer : manifest["layers"]) {
    EXPECT_GE(layer["alignment"]["shared_after"].get<double>(), layer["alignment"]["shared_before"].get<double>());
    EXPECT_EQ(layer["anchors"].size(), 3u);
  }
}

TEST(AnchorQuantize, AuditAgainstItselfShowsNoChange) {
  const TemporaryFolder folder;
  quantize(options_for(trips::kDemo, folder / "q", "anchor-int4-g64", "rtn"));
  const auto changed = [&](const fs::path& original) {
    AuditOptions options;
    options.original = original;
    options.quantized = folder / "q";
    options.texts = {trips::kDemoText};
    options.seqlen = 64;
    options.limit = 4;
    options.mode = AuditMode::both;
    double most = 0;
    for (const AuditComparison& c : audit(options).comparisons)
      most = std::max(most, 1 - metric(c.mean, "jaccard").mean);
    return most;
  };
  EXPECT_EQ(changed(folder / "q"), 0);
  const double against_original = changed(trips::kDemo);
  EXPECT_GT(against_original, 0);
  EXPECT_LT(against_original, 0.1);
}

// Experts that are one expert with its hidden units shuffled, and a little of their own.
void write_upcycled(const fs::path& to, double own) {
  const Checkpoint source = Checkpoint::open(trips::kDemo);
  const ModelFamily& family = family_of(source.config(), "config.json");
  std::map<std::string, Tensor> tensors;
  for (const TensorInfo& tensor : source.tensors()) {
    const TensorView view = source.tensor(tensor.name);
    tensors[tensor.name] = Tensor(view.dtype, view.shape);
    std::memcpy(tensors[tensor.name].data<std::byte>(), view.data, view.num_bytes());
  }
  Rng rng(4);
  std::vector<std::int32_t> order;
  for (const LinearRef& linear : list_linears(model_spec(source), family)) {
    if (linear.role != LinearRole::expert) continue;
    const bool down = linear.module.ends_with("down_proj");
    if (linear.module.ends_with("gate_proj")) {
      order.resize(static_cast<std::size_t>(linear.rows));
      std::iota(order.begin(), order.end(), 0);
      for (std::size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
    }
    std::string first = linear.module;
    const std::size_t at = first.find(".experts.") + 9;
    first.replace(at, first.find('.', at) - at, "0");
    const Tensor base = to_float_matrix(source.tensor(first + ".weight"), first);
    double squares = 0;
    for (std::int64_t i = 0; i < base.size(); ++i) squares += double(base.data<float>()[i]) * base.data<float>()[i];
    const double noise = own * std::sqrt(squares / double(base.size()));
    Tensor w(DType::f32, {linear.rows, linear.cols});
    for (std::int64_t n = 0; n < linear.rows; ++n) {
      for (std::int64_t k = 0; k < linear.cols; ++k) {
        const std::int64_t from = down ? n * linear.cols + order[static_cast<std::size_t>(k)]
                                       : order[static_cast<std::size_t>(n)] * linear.cols + k;
        w.data<float>()[n * linear.cols + k] = static_cast<float>(base.data<float>()[from] + noise * rng.normal());
      }
    }
    tensors[linear.module + ".weight"] = std::move(w);
  }
  fs::create_directories(to);
  fs::copy_file(fs::path(trips::kDemo) / "config.json", to / "config.json");
  write_safetensors(to / "model.safetensors", tensors);
}

double expert_error(const QuantizeReport& report) {
  for (const QuantizeGroup& group : report.groups) {
    if (group.role == "expert") return group.relative_rms_error.value();
  }
  return -1;
}

TEST(AnchorQuantize, ExpertsThatShareMuchLoseLittle) {
  const TemporaryFolder folder;
  write_upcycled(folder / "upcycled", 0.1);
  const double plain = expert_error(quantize(options_for(folder / "upcycled", folder / "w4", "w4a16-g64", "rtn")));
  const double four = expert_error(quantize(options_for(folder / "upcycled", folder / "a4", "anchor-int4-g64", "rtn")));
  const double two =
      expert_error(quantize(options_for(folder / "upcycled", folder / "a2", "anchor-int2-g64-int8", "rtn")));
  EXPECT_LT(four, 0.15 * plain);
  EXPECT_LT(two, plain);
  const Json manifest = read_json(folder / "a4" / "kedge.manifest.json");
  ASSERT_GT(manifest["layers"].size(), 0u);
  for (const Json& layer : manifest["layers"]) {
    EXPECT_GT(layer["alignment"]["shared_after"].get<double>(), 0.98);
    EXPECT_LT(layer["alignment"]["shared_before"].get<double>(), 0.2);
  }
}

TEST(AnchorQuantize, OverridesTakeWholeProjectionsOrNone) {
  const TemporaryFolder folder;
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "anchor-int4-g64", "rtn");
  options.overrides = {{"*.self_attn.*", "none"}, {"*.down_proj", "none"}};
  quantize(options);
  const Checkpoint checkpoint = Checkpoint::open(folder / "q");
  EXPECT_TRUE(checkpoint.config()["quantization_config"]["others"].is_null());
  EXPECT_TRUE(checkpoint.stack_shape("model.layers.0.mlp.experts.up_proj").has_value());
  EXPECT_FALSE(checkpoint.stack_shape("model.layers.0.mlp.experts.down_proj").has_value());
  write_decoded(folder / "q", folder / "decoded");
  const std::vector<float> own = logits_of(folder / "q", {detect_isa()}, 2),
                           other = logits_of(folder / "decoded", {detect_isa()}, 2);
  for (std::size_t i = 0; i < own.size(); ++i) ASSERT_NEAR(own[i], other[i], 1e-3);

  options.destination = folder / "none";
  options.overrides = {{"*.experts.3.*", "w8a16-g64"}};
  EXPECT_EQ(code_of(options, "15 of 16 experts"), ErrorCode::usage);
  options.overrides = {{"*.experts.*", "anchor-int2-g64"}};
  EXPECT_EQ(code_of(options, "all experts of a layer"), ErrorCode::unsupported);
}

TEST(AnchorQuantize, RefusesWhatCannotBe) {
  const TemporaryFolder folder;
  EXPECT_EQ(code_of(options_for(trips::kDemo, folder / "q", "anchor-int3-g64", "rtn"), "not a quantization scheme"),
            ErrorCode::usage);
  EXPECT_EQ(code_of(options_for(trips::kDemo, folder / "q", "anchor-int4-g64", "awq"), "one of rtn"),
            ErrorCode::unsupported);
  EXPECT_EQ(
      code_of(options_for(golden(folder, "olmoe"), folder / "q", "anchor-int4-g128", "rtn"), "a multiple of the group"),
      ErrorCode::usage);
  QuantizeOptions options = options_for(trips::kDemo, folder / "q", "anchor-int4-g64", "kedge");
  options.target_bits = 4.5;
  EXPECT_EQ(code_of(options, "--target-bits"), ErrorCode::usage);
}

TEST(AnchorQuantize, AnotherAnchorThanTheManifestsIsRefused) {
  const TemporaryFolder folder;
  quantize(options_for(trips::kDemo, folder / "q", "anchor-int4-g64", "rtn"));
  std::string config = trips::slurp(folder / "q" / "config.json");
  const std::size_t at = config.find("\"anchor_sha256\": \"") + 18;
  config[at] = config[at] == '0' ? '1' : '0';
  trips::spit(folder / "q" / "config.json", config);
  const trips::Result result = trips::run({"run", (folder / "q").string(), "-p", "It", "-n", "2"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_NE(result.err.find("SHA-256"), std::string::npos) << result.err;
}

TEST(AnchorQuantize, TheCommandSaysWhoOpensItAndRunExplains) {
  const TemporaryFolder folder;
  const std::string to = (folder / "q").string();
  const trips::Result made =
      trips::run({"quantize", trips::kDemo, to, "--scheme", "anchor-int4-g64", "--method", "rtn"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_NE(made.out.find("transformers and vLLM cannot open this directory"), std::string::npos) << made.out;
  const trips::Result ran = trips::run({"run", to, "-p", "It was a", "-n", "3", "--explain"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_NE(ran.err.find("anchor: chosen"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("fused, anchor and deltas are added up in registers"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("group 64 sym on an anchor, fp32 activations"), std::string::npos) << ran.err;
  const trips::Result again =
      trips::run({"quantize", to, (folder / "again").string(), "--scheme", "w4a16-g64", "--method", "rtn"});
  EXPECT_NE(again.err.find("quantized already (kedge/anchor-delta)"), std::string::npos) << again.err;
}

class AnchorKill : public testing::TestWithParam<const char*> {};

TEST_P(AnchorKill, RunAgainGivesTheSameBytes) {
  const TemporaryFolder folder;
  const auto call = [&](const std::string& name) {
    trips::Call call;
    call.arguments = {"quantize",
                      trips::kDemo,
                      (folder / name).string(),
                      "--scheme",
                      "anchor-int2-g64",
                      "--method",
                      GetParam(),
                      "--nsamples",
                      "8",
                      "--seqlen",
                      "128",
                      "--threads",
                      "2",
                      "--quiet"};
    return call;
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result undisturbed = trips::run(call("whole"));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const auto expected = folder_content(folder / "whole");
  Rng rng(21);
  int killed = 0;
  for (int round = 0; round < 4; ++round) {
    const std::string name = "killed-" + std::to_string(round);
    trips::Call first = call(name);
    first.kill_after =
        std::chrono::microseconds(1 + static_cast<std::int64_t>((round + rng.uniform()) / 4 * double(took.count())));
    killed += trips::run(first).exit_code == 128 + SIGKILL ? 1 : 0;
    if (!fs::exists(folder / name) || folder_content(folder / name) != expected) {
      const trips::Result second = trips::run(call(name));
      ASSERT_EQ(second.exit_code, 0) << second.err;
    }
    EXPECT_TRUE(folder_content(folder / name) == expected) << "round " << round;
    EXPECT_FALSE(fs::exists((folder / name).string() + ".partial"));
  }
  EXPECT_GE(killed, 2);
}
INSTANTIATE_TEST_SUITE_P(All, AnchorKill, testing::Values("kedge", "rtn"));

}  // namespace
}  // namespace kedge
