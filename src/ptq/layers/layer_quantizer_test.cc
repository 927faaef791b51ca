// The calibrated pass of one layer: what it may not depend on.
#include <filesystem>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/checkpoint_source.h"
#include "ptq/layers/hidden_states.h"
#include "ptq/layers/input_groups.h"
#include "ptq/layers/layer.h"

namespace kedge {
namespace {

TEST(InputWaves, PartsKeepToTheBytesAndTheOrder) {
  PlannedModule up, down;
  up.linear.rows = 8, up.linear.cols = 16;
  down.linear.rows = 16, down.linear.cols = 8;
  Wave wave;
  for (int e = 0; e < 5; ++e) wave.push_back({InputGroup::Kind::expert, "", e, false, {&up}});
  const auto sizes = [&](std::int64_t bytes, bool cross) {
    std::vector<std::size_t> out;
    int expert = 0;
    for (const Wave& part : parts_of(wave, bytes, cross, true)) {
      out.push_back(part.size());
      for (const InputGroup& group : part) EXPECT_EQ(group.expert, expert++);
    }
    return out;
  };
  constexpr std::int64_t kOne = 16 * 16 * 4;
  EXPECT_EQ(sizes(5 * kOne, false), (std::vector<std::size_t>{5}));
  EXPECT_EQ(sizes(4 * kOne, false), (std::vector<std::size_t>{4, 1}));
  EXPECT_EQ(sizes(4 * kOne, true), (std::vector<std::size_t>{2, 2, 1}));
  EXPECT_EQ(sizes(1, true), (std::vector<std::size_t>{1, 1, 1, 1, 1}));
  wave = {{InputGroup::Kind::expert_intermediate, "", 0, true, {&down}},
          {InputGroup::Kind::expert_intermediate, "", 1, true, {&down}}};
  EXPECT_EQ(parts_of(wave, 2 * (8 * 8 + 8 * 16) * 4, false, true).size(), 1u);
  EXPECT_EQ(parts_of(wave, 2 * (8 * 8 + 8 * 16) * 4 - 1, false, true).size(), 2u);
  up.anchor.emplace();
  wave = {{InputGroup::Kind::expert, "", 0, false, {&up}}, {InputGroup::Kind::expert, "", 1, false, {&up}}};
  EXPECT_EQ(parts_of(wave, 1, true, true).size(), 1u);
}

class LayerParts : public testing::TestWithParam<const char*> {};

// Least memory: one group, one expert's Gram at a time.
TEST_P(LayerParts, ChangeNoBit) {
  const Checkpoint checkpoint =
      Checkpoint::open(std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/goldens/hf/deepseek_v3");
  Recipe recipe;
  recipe.scheme = parse_scheme("w3a16-g32");
  recipe.method = GetParam();
  recipe.parameters.min_expert_tokens = 8;
  recipe.refit.enabled = true;
  const QuantPlan plan = plan_quantization(checkpoint, recipe, 1'000'000'000);
  const ModelSpec spec = model_spec(checkpoint);
  const CheckpointSource source(checkpoint, spec);
  ThreadPool threads(2);
  const auto quantized_with = [&](std::int64_t bytes) {
    LayerInput input{spec,    spec.num_hidden_layers - 1,
                     source,  {},
                     recipe,  {detect_isa(), Numerics::consistent, Activations::fp32},
                     threads, {}};
    input.statistics_bytes = bytes;
    for (const PlannedModule& module : plan.modules) {
      if (module.linear.layer == input.layer) input.modules.push_back(&module);
    }
    HiddenStates original(4, 24, spec.hidden_size), quantized(4, 24, spec.hidden_size);
    Rng rng(5);
    for (std::int64_t i = 0; i < original.rows() * spec.hidden_size; ++i) {
      original.row(0)[i] = static_cast<float>(rng.normal());
      quantized.row(0)[i] = original.row(0)[i] + static_cast<float>(0.05 * rng.normal());
    }
    LayerOutput out = quantize_layer(input, original, quantized, nullptr);
    std::vector<float> states(quantized.row(0), quantized.row(0) + quantized.rows() * spec.hidden_size);
    return std::pair(std::move(out), std::move(states));
  };
  const auto [whole, states] = quantized_with(std::int64_t{2} << 30);
  const auto [parts, same_states] = quantized_with(1);
  EXPECT_EQ(states, same_states);
  EXPECT_EQ(whole.log, parts.log);
  ASSERT_GT(whole.weights.size(), 0u);
  for (const auto& [name, weight] : whole.weights) {
    const QuantTensor& other = parts.weights.at(name);
    EXPECT_TRUE(weight.codes == other.codes && weight.scales == other.scales) << name;
  }
  ASSERT_GT(whole.replaced.size(), 0u);
  for (const auto& [name, values] : whole.replaced) {
    const Tensor& other = parts.replaced.at(name);
    EXPECT_TRUE(std::equal(values.data<float>(), values.data<float>() + values.size(), other.data<float>())) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(All, LayerParts, testing::Values("gptq", "gptaq"));

}  // namespace
}  // namespace kedge
