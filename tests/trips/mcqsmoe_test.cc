// A model routed by reconstruction error, end to end: trained, killed, run, measured, traced, audited, quantized.
#include <signal.h>

#include <algorithm>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "kedge/error.h"
#include "process.h"

#ifdef KEDGE_TORCH_BINARY
namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

std::vector<std::string> training(const TemporaryFolder& folder, const std::string& out) {
  const Json config = {{"model_type", "kedge_mcqsmoe"},
                       {"vocab_size", 4096},
                       {"hidden_size", 64},
                       {"num_hidden_layers", 2},
                       {"num_attention_heads", 2},
                       {"max_position_embeddings", 64},
                       {"tie_word_embeddings", true},
                       {"num_experts", 4},
                       {"num_experts_per_tok", 2},
                       {"moe_intermediate_size", 128},
                       {"hidden_act", "gelu"},
                       {"router_bottleneck", 8},
                       {"router_manifold", "stiefel-polar"},
                       {"expert_delta_bits", 4},
                       {"expert_group_size", 32},
                       {"dtype", "float32"}};
  trips::spit(folder / "config.json", config.dump());
  return {"train",          "lm",
          "--config",       (folder / "config.json").string(),
          "--tokenizer",    trips::kDemo,
          "--text",         trips::kDemoText,
          "--valid",        trips::kDemoText,
          "--out",          (folder / out).string(),
          "--steps",        "20",
          "--batch-size",   "2",
          "--seqlen",       "32",
          "--save-every",   "4",
          "--threads",      "1",
          "--lr",           "0.01",
          "--data-seed",    "3",
          "--routing-seed", "4"};
}

double nll(const fs::path& model) {
  const trips::Result result = trips::run(
      {"perplexity", model.string(), "--text", trips::kDemoText, "--seqlen", "32", "--limit", "64", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return parse_json(result.out, "perplexity")["results"]["mean_nll"].get<double>();
}

TEST(Mcqsmoe, IsTrainedRoundedAndRunByTheEngine) {
  const TemporaryFolder folder;
  const trips::Result result = trips::run(training(folder, "m"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const fs::path model = folder / "m", masters = folder / "m/checkpoint-000020";
  const Json record = read_json(model / "training.json");
  EXPECT_LT(record["results"]["valid_loss"], 8.0);
  EXPECT_EQ(record["config"]["routing_seed"], 4);
  EXPECT_EQ(Checkpoint::open(model).quant_format(), "kedge/anchor-delta");
  EXPECT_EQ(Checkpoint::open(masters).quant_format(), "");
  // What training measured is what the stored model is.
  EXPECT_NEAR(nll(model), record["results"]["valid_loss"].get<double>(), 1e-3);
  EXPECT_NE(nll(masters), nll(model));
  EXPECT_EQ(trips::run({"run", model.string(), "-p", "It was", "-n", "3"}).exit_code, 0);
  const trips::Result inspected = trips::run({"inspect", model.string()});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.err;
  EXPECT_NE(inspected.out.find("squared error of 4 autoencoders of 8"), std::string::npos) << inspected.out;
  EXPECT_NE(inspected.out.find("anchor-int4-g32"), std::string::npos) << inspected.out;
}

TEST(Mcqsmoe, IsTracedAndAudited) {
  const TemporaryFolder folder;
  ASSERT_EQ(trips::run(training(folder, "m")).exit_code, 0);
  const std::string model = (folder / "m").string(), masters = (folder / "m/checkpoint-000020").string();
  const std::string path = (folder / "trace.safetensors").string();
  const trips::Result traced =
      trips::run({"trace", model, "--text", trips::kDemoText, "--seqlen", "32", "--limit", "2", "--out", path});
  ASSERT_EQ(traced.exit_code, 0) << traced.err;
  const SafetensorsFile trace(path);
  for (const char* layer : {"0", "1"}) {
    const TensorView errors = trace.tensor(std::string("all_errors.") + layer);
    const TensorView norms = trace.tensor(std::string("residual_norm.") + layer);
    const TensorView logits = trace.tensor(std::string("router_logits.") + layer);
    ASSERT_EQ(errors.shape, (Shape{64, 4}));
    ASSERT_EQ(norms.shape, (Shape{64}));
    for (std::int64_t i = 0; i < errors.size(); ++i) {
      float error = 0, logit = 0;
      convert_to_float(errors.dtype, errors.data + i * 4, 1, &error);
      convert_to_float(logits.dtype, logits.data + i * 4, 1, &logit);
      EXPECT_EQ(logit, -error / 0.1f);
      EXPECT_GE(error, 0);
      EXPECT_LE(error, 1);
    }
  }
  const auto audit = [&](const std::string& a, const std::string& b, const char* out) {
    const trips::Result result = trips::run({"audit", a, b, "--text", trips::kDemoText, "--seqlen", "32", "--limit",
                                             "8", "--out", (folder / out).string()});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return read_json(folder / out / "report.json");
  };
  const Json rounded = audit(masters, model, "audit");
  EXPECT_NE(rounded.dump().find("kedge_mcqsmoe"), std::string::npos);
  EXPECT_GT(rounded["results"]["mean"]["kld"]["mean"], 0);
  const Json itself = audit(model, model, "self");
  const Json& self = itself["results"]["mean"];
  EXPECT_EQ(self["jaccard"]["mean"], 1);
  EXPECT_EQ(self["any_changed"]["mean"], 0);
  EXPECT_EQ(self["kld"]["mean"], 0);
}

TEST(Mcqsmoe, CalibratedMethodsRefuseItAndPlainOnesDoNot) {
  const TemporaryFolder folder;
  ASSERT_EQ(trips::run(training(folder, "m")).exit_code, 0);
  const std::string masters = (folder / "m/checkpoint-000020").string();
  const trips::Result refused =
      trips::run({"quantize", masters, (folder / "q").string(), "--scheme", "w4a16-g32", "--method", "gptq"});
  EXPECT_EQ(refused.exit_code, static_cast<int>(ErrorCode::unsupported));
  EXPECT_NE(refused.err.find("routed by reconstruction error"), std::string::npos) << refused.err;
  const trips::Result plain =
      trips::run({"quantize", masters, (folder / "q").string(), "--scheme", "w8a16-g32", "--method", "rtn"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_NEAR(nll(folder / "q"), nll(masters), 0.05);
  const trips::Result anchored =
      trips::run({"quantize", masters, (folder / "a").string(), "--scheme", "anchor-int4-g32", "--method", "rtn"});
  ASSERT_EQ(anchored.exit_code, 0) << anchored.err;
  EXPECT_NEAR(nll(folder / "a"), nll(masters), 0.05);
}

// FFNs without a gate, calibrated: each matrix is fitted to the inputs that it gets.
TEST(Mcqsmoe, DenseLayersAreCalibrated) {
  const TemporaryFolder folder;
  std::vector<std::string> words = training(folder, "m");
  Json config = read_json(folder / "config.json");
  for (const char* key : {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "router_bottleneck",
                          "router_manifold", "expert_delta_bits", "expert_group_size"}) {
    config.erase(key);
  }
  config["intermediate_size"] = 128, config["mlp_gated"] = false, config["mlp_only_layers"] = {0, 1};
  trips::spit(folder / "config.json", config.dump());
  ASSERT_EQ(trips::run(words).exit_code, 0);
  const auto up_proj_error = [&](const std::string& method) {
    const trips::Result result =
        trips::run({"quantize", (folder / "m").string(), (folder / method).string(), "--scheme", "w3a16-g32",
                    "--method", method, "--nsamples", "8", "--seqlen", "32"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    double error = 0;
    const Json manifest = read_json(folder / method / "kedge.manifest.json");
    for (const Json& module : manifest["modules"]) {
      if (module["name"].get<std::string>().ends_with("up_proj")) error += module["relative_rms_error"].get<double>();
    }
    return error;
  };
  // Error feedback moves weights further than rounding to nearest does.
  EXPECT_GT(up_proj_error("gptq"), 1.01 * up_proj_error("rtn"));
}

TEST(Mcqsmoe, AKillChangesNoLoss) {
  const TemporaryFolder folder;
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(trips::run(training(folder, "whole")).exit_code, 0);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  int kills = 0;
  for (int call = 0; call < 12 && !fs::exists(folder / "killed/training.json"); ++call) {
    trips::Call run;
    run.arguments = training(folder, "killed");
    if (call < 2) run.kill_after = whole * 3 / 5;
    kills += trips::run(run).exit_code == 128 + SIGKILL;
  }
  ASSERT_TRUE(fs::exists(folder / "killed/training.json"));
  EXPECT_GE(kills, 1);
  EXPECT_EQ(trips::slurp(folder / "killed/model.safetensors"), trips::slurp(folder / "whole/model.safetensors"));
}

}  // namespace
}  // namespace kedge
#endif
