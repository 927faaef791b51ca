// Experts as one stacked tensor: the same outputs and gradients as expert by expert, idle experts included.
#include "twin/grouped.h"

#include <gtest/gtest.h>

#include "twin/block.h"
#include "twin/testing.h"
#include "twin/testing_specs.h"

namespace kedge::twin {
namespace {

using namespace testing;

/// In fp64, where products of one row and of several differ by rounding alone.
void expect_equal(const Tensor& a, const Tensor& b, const std::string& what) {
  EXPECT_LE((a - b).abs().max().item<double>(), 1e-12 * (1 + a.abs().max().item<double>())) << what;
}

TEST(StackedExperts, AreTheExpertsOneByOne) {
  for (const NamedSpec& base : base_specs(5)) {
    if (!std::holds_alternative<Moe>(base.spec.blocks[1].mixer)) continue;
    SCOPED_TRACE(base.name);
    const auto infos = list_layer_parameters(base.spec, base.spec.blocks[1].source_layer);
    Options one_by_one;
    one_by_one.dtype = one_by_one.compute_dtype = at::kDouble;
    Options together = one_by_one;
    together.stacked_experts = true;
    Parameters single = load_parameters(infos, FanInSource(3), one_by_one);
    single.require_gradients(true);
    std::map<std::string, std::vector<Tensor>> members;
    Parameters stacked;
    for (const auto& [name, value] : single) {
      const std::string joint = stacked_name(name);
      if (joint.empty()) {
        stacked.insert(name, value.detach().clone().set_requires_grad(value.requires_grad()));
      } else {
        members[joint].push_back(value.detach().unsqueeze(0));
      }
    }
    for (const auto& [name, values] : members) stacked.insert(name, at::cat(values, 0).set_requires_grad(true));

    // So few tokens that some expert stays idle.
    Rng rng(11);
    std::vector<float> values(static_cast<std::size_t>(3 * base.spec.hidden_size));
    for (float& v : values) v = static_cast<float>(rng.normal());
    const Tensor h = from_floats(values, {1, 3, base.spec.hidden_size}).to(at::kDouble);
    const auto run = [&](const Options& options, const Parameters& parameters) {
      const Tensor input = h.clone().set_requires_grad(true);
      Layer layer(base.spec, base.spec.blocks[1].source_layer, options);
      const Tensor y = layer.forward(input, [&](const std::string& name) { return parameters[name]; });
      (y * at::arange(base.spec.hidden_size, y.options()).sin()).sum().backward();
      return std::pair(y.detach(), input.grad());
    };
    const auto expected = run(one_by_one, single), ours = run(together, stacked);
    expect_equal(expected.first, ours.first, "y");
    expect_equal(expected.second, ours.second, "the input's gradient");
    std::size_t idle = 0, compared = 0;
    for (const auto& [name, value] : single) {
      if (!value.requires_grad()) continue;
      const std::string joint = stacked_name(name);
      if (joint.empty()) {
        expect_equal(value.grad(), stacked[name].grad(), name);
        continue;
      }
      const std::string number = name.substr(name.find(".experts.") + 9);
      const Tensor gradient = stacked[joint].grad().select(0, std::stoll(number));
      if (value.grad().defined()) {
        expect_equal(value.grad(), gradient, name);
        ++compared;
      } else {
        EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name;
        ++idle;
      }
    }
    EXPECT_GT(compared, 0u);
    EXPECT_GT(idle, 0u);
  }
}

TEST(GroupedLinear, AddsToAGradientThatIsThere) {
  const std::vector<std::int64_t> counts = {3, 0, 5, 1};
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor x = at::arange(9 * 6, options).sin().view({9, 6});
  const Tensor weight = at::arange(4 * 5 * 6, options).cos().view({4, 5, 6}).set_requires_grad(true);
  const auto backward = [&] {
    (grouped_linear(x, weight, counts) * at::arange(45, options).view({9, 5})).sum().backward();
  };
  backward();
  const Tensor once = weight.grad().clone();
  const void* place = weight.grad().const_data_ptr();
  backward();
  EXPECT_EQ(weight.grad().const_data_ptr(), place);
  expect_equal(2 * once, weight.grad(), "twice");
  EXPECT_EQ(weight.grad().select(0, 1).abs().max().item<double>(), 0);
  EXPECT_GT(once.abs().max().item<double>(), 0);
}

TEST(StackedExperts, NamesOfExpertsAlone) {
  EXPECT_EQ(stacked_name("model.layers.0.mlp.experts.13.gate_proj.weight"),
            "model.layers.0.mlp.experts.gate_proj.weight");
  EXPECT_EQ(stacked_name("model.layers.0.mlp.shared_experts.gate_proj.weight"), "");
  EXPECT_EQ(stacked_name("model.layers.0.mlp.gate.weight"), "");
}

}  // namespace
}  // namespace kedge::twin
