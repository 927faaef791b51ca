// Against what transformers computed in fp32 with eager attention (tests/goldens/hf).
#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "base/json.h"
#include "model/testing.h"

namespace kedge {
namespace {

using namespace testing_model;

constexpr double kTolerance = 1e-4;

LoadOptions best_options() { return {detect_isa(), Numerics::consistent, Activations::fp32}; }

class Goldens : public ::testing::TestWithParam<const char*> {
 protected:
  Goldens()
      : golden(golden_dir(GetParam()) / "golden.safetensors"),
        checkpoint(Checkpoint::open(golden_dir(GetParam()))),
        runner(checkpoint, best_options()),
        ids(integers(golden, "input_ids")) {}

  /// Both rows in one batch.
  std::vector<float> run_batch(ForwardProbe* probe) {
    SequenceState a = runner.state(24), b = runner.state(24);
    const std::span<const std::int32_t> all(ids);
    const Segment segments[] = {{&a, all.subspan(0, 24)}, {&b, all.subspan(24, 24)}};
    return runner.forward(segments, LogitRows::all, probe);
  }

  SafetensorsFile golden;
  Checkpoint checkpoint;
  Runner runner;
  std::vector<std::int32_t> ids;
};

TEST_P(Goldens, LogitsAndHiddenStates) {
  Recorder recorder;
  const auto logits = run_batch(&recorder);
  const double logit_difference = max_abs_difference(logits, floats(golden, "logits"));
  EXPECT_LE(logit_difference, kTolerance);
  EXPECT_EQ(recorder.all_logits, logits);
  double most = 0;
  int states = 0;
  for (; golden.has("hidden_states." + std::to_string(states)); ++states) {
    const auto expected = floats(golden, "hidden_states." + std::to_string(states));
    const double difference = max_abs_difference(recorder.hidden[states], expected);
    EXPECT_LE(difference, kTolerance) << "hidden state " << states;
    most = std::max(most, difference);
  }
  EXPECT_EQ(states, runner.model.spec().num_hidden_layers + 1);
  EXPECT_EQ(static_cast<int>(recorder.hidden.size()), states);
  RecordProperty("logits_max_abs", std::to_string(logit_difference));
  std::printf("%s: logits %.2e, hidden states %.2e\n", GetParam(), logit_difference, most);
}

TEST_P(Goldens, Routing) {
  Recorder recorder;
  run_batch(&recorder);
  const auto layers = runner.model.spec().moe_layers();
  ASSERT_FALSE(layers.empty());
  EXPECT_EQ(recorder.ids.size(), layers.size());
  double logit_difference = 0, weight_difference = 0;
  for (const int layer : layers) {
    const std::string suffix = "." + std::to_string(layer);
    const auto k = static_cast<std::size_t>(recorder.top_k);
    logit_difference = std::max(
        logit_difference, max_abs_difference(recorder.router_logits[layer], floats(golden, "router_logits" + suffix)));
    const auto expected_ids = integers(golden, "topk_ids" + suffix);
    const auto expected_weights = floats(golden, "topk_weights" + suffix);
    ASSERT_EQ(expected_ids.size(), recorder.ids[layer].size());
    for (std::size_t row = 0; row < expected_ids.size() / k; ++row) {
      std::map<std::int32_t, float> ours, theirs;
      for (std::size_t s = row * k; s < (row + 1) * k; ++s) {
        ours[recorder.ids[layer][s]] = recorder.weights[layer][s];
        theirs[expected_ids[s]] = expected_weights[s];
      }
      ASSERT_EQ(ours.size(), k);
      for (const auto& [id, weight] : theirs) {
        ASSERT_TRUE(ours.contains(id)) << "layer " << layer << " row " << row << " expert " << id;
        weight_difference = std::max(weight_difference, std::fabs(double{weight} - double{ours[id]}));
      }
    }
    EXPECT_EQ(recorder.inputs[layer].size(), 48u * static_cast<std::size_t>(runner.model.spec().hidden_size));
    EXPECT_EQ(recorder.intermediates[layer].size(),
              48u * k * static_cast<std::size_t>(runner.model.spec().moe(layer).moe_intermediate_size));
  }
  EXPECT_LE(logit_difference, kTolerance);
  EXPECT_LE(weight_difference, kTolerance);
  std::printf("%s: router logits %.2e, top-k weights %.2e\n", GetParam(), logit_difference, weight_difference);
}

TEST_P(Goldens, GreedyWithAndWithoutCache) {
  const auto prompt = integers(golden, "greedy_prompt"), expected = integers(golden, "greedy_tokens");
  const int n = static_cast<int>(expected.size());
  EXPECT_EQ(greedy(runner, prompt, n, true), expected);
  EXPECT_EQ(greedy(runner, prompt, n, false), expected);
}

INSTANTIATE_TEST_SUITE_P(Families, Goldens, ::testing::Values("olmoe", "qwen3_moe", "mixtral", "deepseek_v3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(DemoModel, GreedyContinuationsAreTransformers) {
  const Json expected = read_json(source_dir() / "tests/goldens/demo-4m.expected.json");
  const Checkpoint checkpoint = Checkpoint::open(source_dir() / "models/demo-4m");
  Runner runner(checkpoint, best_options());
  ASSERT_FALSE(expected["greedy"].empty());
  for (const Json& row : expected["greedy"]) {
    const auto prompt = row["prompt_ids"].get<std::vector<std::int32_t>>();
    const auto tokens = row["greedy_ids"].get<std::vector<std::int32_t>>();
    EXPECT_EQ(greedy(runner, prompt, static_cast<int>(tokens.size()), true), tokens) << row["prompt"];
  }
}

}  // namespace
}  // namespace kedge
