// Gradients: against finite differences in fp64, through each mechanism; which parameters an objective reaches; and
// what a tuner relies on (weights through a function, nothing asked for twice).
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "kedge/error.h"
#include "model/family.h"
#include "model/testing.h"
#include "twin/model.h"
#include "twin/moe.h"
#include "twin/testing.h"
#include "twin/testing_specs.h"

namespace kedge::twin {
namespace {

using namespace testing;

constexpr std::int64_t kBatch = 2, kTokens = 7;

Options double_options() {
  Options options;
  options.dtype = options.compute_dtype = at::kDouble;
  return options;
}

Tensor normals(at::IntArrayRef shape, std::uint64_t seed) {
  Rng rng(seed);
  Tensor out = at::empty(shape, at::TensorOptions().dtype(at::kDouble));
  for (std::int64_t i = 0; i < out.numel(); ++i) out.mutable_data_ptr<double>()[i] = rng.normal();
  return out;
}

/// A layer in fp64 with its weights and an input.
struct Subject {
  explicit Subject(const ModelSpec& spec)
      : layer(spec, spec.blocks[0].source_layer, double_options()),
        parameters(load_parameters(list_layer_parameters(spec, spec.blocks[0].source_layer), FanInSource(3),
                                   double_options())),
        h(normals({kBatch, kTokens, spec.hidden_size}, 4)),
        direction(normals({kBatch, kTokens, spec.hidden_size}, 5)) {}

  WeightFunction weights() const {
    return [this](const std::string& name) { return parameters[name]; };
  }
  /// A scalar of the output, and of what is observed: every path carries a gradient.
  Tensor loss() {
    std::vector<Routing> routing;
    Tensor out = (layer.forward(h, weights(), {{}, &routing}) * direction).sum();
    for (const Routing& r : routing) out = out + r.logits.square().sum() * 0.1 + r.scores.sum() * 0.05;
    return out;
  }

  Layer layer;
  Parameters parameters;
  Tensor h, direction;
};

/// Central difference of the loss by element i of x.
double finite_difference(Subject& subject, const Tensor& x, std::int64_t i) {
  constexpr double kStep = 1e-5;
  const at::NoGradGuard no_gradients;
  double* value = x.mutable_data_ptr<double>() + i;
  const double before = *value;
  *value = before + kStep;
  const double above = subject.loss().item<double>();
  *value = before - kStep;
  const double below = subject.loss().item<double>();
  *value = before;
  return (above - below) / (2 * kStep);
}

class Gradients : public ::testing::TestWithParam<int> {};

TEST_P(Gradients, AreFiniteDifferences) {
  const NamedSpec base = base_specs(1)[static_cast<std::size_t>(GetParam())];
  Subject subject(base.spec);
  subject.parameters.require_gradients(true);
  subject.h.set_requires_grad(true);
  subject.loss().backward();

  std::vector<Parameters::Item> all(subject.parameters.begin(), subject.parameters.end());
  all.emplace_back("h", subject.h);
  int checked = 0;
  double worst = 0;
  for (const auto& [name, x] : all) {
    if (!x.requires_grad() || !x.grad().defined()) continue;
    SCOPED_TRACE(base.name + " " + name);
    const Tensor gradient = x.grad().contiguous();
    const std::int64_t largest = gradient.abs().argmax().item<std::int64_t>();
    for (const std::int64_t i : {largest, x.numel() / 3}) {
      const double expected = finite_difference(subject, x, i);
      const double ours = gradient.const_data_ptr<double>()[i];
      const double scale = std::fabs(gradient.const_data_ptr<double>()[largest]);
      EXPECT_LE(std::fabs(ours - expected), 1e-6 * std::max(scale, 1e-3)) << i;
      worst = std::max(worst, std::fabs(ours - expected) / std::max(scale, 1e-3));
      ++checked;
    }
  }
  EXPECT_GE(checked, 20);
  std::printf("%s: %d derivatives within %.1e\n", base.name.c_str(), checked, worst);
}

TEST_P(Gradients, EveryListedParameterIsAskedForOnceAndNoOther) {
  const NamedSpec base = base_specs(2)[static_cast<std::size_t>(GetParam())];
  Subject subject(base.spec);
  std::map<std::string, int> asked;
  std::vector<Routing> routing;
  subject.layer.forward(subject.h, [&](const std::string& name) { return ++asked[name], subject.parameters[name]; },
                        {{}, &routing});
  std::set<std::int32_t> reached;
  for (const Routing& r : routing) {
    for (const std::int32_t id : to_integers(r.expert_ids)) reached.insert(id);
  }
  for (const ParameterInfo& info : list_layer_parameters(base.spec, 0)) {
    const std::size_t at = info.name.find(".experts.");
    const bool idle = at != std::string::npos && !reached.contains(std::stoi(info.name.substr(at + 9)));
    EXPECT_EQ(asked[info.name], idle ? 0 : 1) << info.name;
    asked.erase(info.name);
  }
  for (const auto& [name, count] : asked) ADD_FAILURE() << name << " is not listed";
}

INSTANTIATE_TEST_SUITE_P(Bases, Gradients, ::testing::Range(0, 6),
                         [](const auto& info) { return base_specs(1)[static_cast<std::size_t>(info.param)].name; });

/// Which of a layer's parameters a scalar reaches with a gradient that is not zero.
std::set<std::string> reached_by(Subject& subject, const Tensor& scalar) {
  scalar.backward();
  std::set<std::string> out;
  for (const auto& [name, parameter] : subject.parameters) {
    if (parameter.grad().defined() && parameter.grad().abs().max().item<double>() > 0) out.insert(name);
  }
  return out;
}

ModelSpec routed_spec() { return base_specs(1)[1].spec; }

TEST(RoutingGradients, TheSameRouterReachesAttentionAndNoExpert) {
  Subject subject(routed_spec());
  subject.parameters.require_gradients(true);
  const auto reached = reached_by(subject, subject.layer.route(subject.h, subject.weights()).logits.square().sum());
  EXPECT_TRUE(reached.contains("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_TRUE(reached.contains("model.layers.0.self_attn.o_proj.weight"));
  EXPECT_TRUE(reached.contains("model.layers.0.post_attention_layernorm.weight"));
  EXPECT_TRUE(reached.contains("model.layers.0.mlp.gate.weight"));
  for (const std::string& name : reached) EXPECT_EQ(name.find(".experts."), std::string::npos) << name;
}

TEST(RoutingGradients, TheNextRouterReachesTheExperts) {
  Subject subject(routed_spec());
  ModelSpec next_spec = routed_spec();
  for (BlockSpec& block : next_spec.blocks) block.source_layer = 1;
  Layer next(next_spec, 1, double_options());
  const Parameters frozen = load_parameters(list_layer_parameters(next_spec, 1), FanInSource(9), double_options());
  subject.parameters.require_gradients(true);
  const Tensor h = subject.layer.forward(subject.h, subject.weights());
  const Routing routing = next.route(h, [&](const std::string& name) { return frozen[name]; });
  EXPECT_EQ(routing.layer, 1);
  const auto reached = reached_by(subject, routing.logits.square().sum());
  std::size_t experts = 0;
  for (const std::string& name : reached) experts += name.find(".experts.") != std::string::npos;
  EXPECT_GT(experts, 6u);
  for (const auto& [name, parameter] : frozen) EXPECT_FALSE(parameter.grad().defined()) << name;
}

TEST(RoutingGradients, ASubstituteTakesTheGradientOfTheWeight) {
  Subject subject(routed_spec());
  const std::string tuned = "model.layers.0.self_attn.v_proj.weight";
  const Tensor offset = at::zeros_like(subject.parameters[tuned]).set_requires_grad(true);
  const Tensor y = subject.layer.forward(subject.h, [&](const std::string& name) {
    return name == tuned ? subject.parameters[name] + offset : subject.parameters[name];
  });
  (y * subject.direction).sum().backward();
  ASSERT_TRUE(offset.grad().defined());
  EXPECT_GT(offset.grad().abs().max().item<double>(), 0);
  for (const auto& [name, parameter] : subject.parameters) EXPECT_FALSE(parameter.grad().defined()) << name;
}

/// The engine's router and the twin's on the same logits, many of which are equal.
TEST(TwinRouter, IsTheEnginesTiesIncluded) {
  Rng rng(21);
  int ties = 0;
  for (const NamedSpec& base : base_specs(4)) {
    const auto* moe = std::get_if<Moe>(&base.spec.blocks[1].mixer);
    if (moe == nullptr) continue;
    SCOPED_TRACE(base.name);
    const RouterSpec& spec = moe->router;
    constexpr std::int64_t kRows = 400;
    std::vector<float> logits, bias;
    for (std::int64_t i = 0; i < kRows * spec.num_experts; ++i) {
      logits.push_back(0.5f * static_cast<float>(rng.below(5)) - 1.0f);
    }
    if (spec.selection_bias) {
      for (std::int64_t e = 0; e < spec.num_experts; ++e) bias.push_back(0.25f * static_cast<float>(rng.below(2)));
    }
    const auto k = static_cast<std::size_t>(spec.num_experts_per_tok);
    std::vector<std::int32_t> ids(kRows * k);
    std::vector<float> weights(kRows * k), scores(logits.size());
    kedge::route(spec, logits.data(), kRows, bias, ids.data(), weights.data(), scores.data(), Isa::scalar);
    const Routing twin = route(spec, from_floats(logits, {kRows, spec.num_experts}),
                               spec.selection_bias ? from_floats(bias, {spec.num_experts}) : Tensor());
    EXPECT_EQ(to_integers(twin.expert_ids), ids);
    EXPECT_LE(testing_model::max_abs_difference(to_floats(twin.weights), weights), 1e-6);
    for (std::size_t row = 0; row < kRows; ++row) {
      const float* first = scores.data() + row * static_cast<std::size_t>(spec.num_experts);
      ties += first[ids[row * k]] == first[ids[row * k + 1]];
    }
  }
  EXPECT_GT(ties, 500);
}

TEST(TwinParameters, HaveTheLinearsOfTheFamilies) {
  for (const char* family : {"olmoe", "qwen3_moe", "mixtral", "deepseek_v3"}) {
    const Checkpoint checkpoint = Checkpoint::open(testing_model::golden_dir(family));
    const ModelSpec spec = model_spec(checkpoint);
    std::map<std::string, Shape> listed;
    std::size_t matrices = 0;
    for (const ParameterInfo& info : list_parameters(spec)) {
      EXPECT_TRUE(listed.emplace(info.name, info.shape).second) << info.name;
      matrices += info.kind == ParameterKind::matrix || info.kind == ParameterKind::router;
    }
    const auto linears = list_linears(spec, model_families().front());
    EXPECT_EQ(matrices, linears.size());
    for (const LinearRef& linear : linears) {
      EXPECT_EQ(listed[linear.canonical + ".weight"], (Shape{linear.rows, linear.cols})) << linear.canonical;
    }
  }
}

TEST(TwinParameters, RandomOnesFollowTheSeed) {
  const ModelSpec spec = routed_spec();
  Model a = Model::random(spec, 1), b = Model::random(spec, 1), c = Model::random(spec, 2);
  const std::string name = "model.layers.0.mlp.experts.3.up_proj.weight";
  EXPECT_EQ(to_floats(a.parameters()[name]), to_floats(b.parameters()[name]));
  EXPECT_NE(to_floats(a.parameters()[name]), to_floats(c.parameters()[name]));
  EXPECT_EQ(to_floats(a.parameters()["model.norm.weight"])[0], 1.0f);
  EXPECT_NEAR(a.parameters()["model.embed_tokens.weight"].std().item<double>(), 0.02, 0.002);
  EXPECT_TRUE(a.parameters().trainable().empty());
  a.parameters().require_gradients(true);
  EXPECT_EQ(a.parameters().trainable().size(), a.parameters().size());
}

TEST(TwinModel, RefusesTokensOutsideTheVocabulary) {
  Model model = Model::random(routed_spec(), 1);
  EXPECT_THROW(model.forward(from_ids(std::vector<std::int32_t>{1, 32}, {1, 2})), Error);
  EXPECT_THROW(model.forward(from_ids(std::vector<std::int32_t>{-1, 3}, {1, 2})), Error);
}

TEST(TwinOptions, DevicesByName) {
  EXPECT_EQ(parse_device("cpu"), at::Device(at::kCPU));
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CPU"}) {
    EXPECT_THROW(parse_device(name), Error) << name;
  }
  EXPECT_THROW(parse_device("cuda:99"), Error);
}

}  // namespace
}  // namespace kedge::twin
