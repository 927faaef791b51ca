// A layer's tuning: what each router reaches, which objectives are the same, what it gains, what it refuses.
#include "ptq/methods_twin/layer_tuning.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "base/json.h"
#include "kedge/error.h"
#include "ptq/methods_twin/testing.h"
#include "twin/testing.h"

namespace kedge {
namespace {

using testing::kDemo;
using testing::kGoldens;
using testing::LayerSubject;
using testing::recipe_for;
using testing::same_weights;
using twin::testing::devices;
using twin::testing::options_on;

/// The largest gradient that the routing terms leave in the attention's and in the experts' matrices.
struct Reach {
  float attention = 0, experts = 0;
};

Reach reach_of(TuneRouter router, int layer) {
  Recipe recipe = recipe_for("vsraq", "w3a16-g128");
  recipe.tune.objective = parse_objective("mse=1,value=1");
  recipe.tune.router = router;
  const LayerSubject subject(kDemo, layer, recipe);
  const auto tuning = subject.tuning();
  tuning->prepare();
  tuning->weights().refresh();
  tuning->loss({0, 1});
  at::Tensor routing;
  for (const TermValue& term : tuning->terms()) {
    if (term.name == "mse") continue;
    routing = routing.defined() ? routing + term.value : term.value;
  }
  Reach reach;
  if (!routing.defined()) return reach;
  routing.backward();
  for (const PlannedModule* module : subject.input.modules) {
    if (!module->args) continue;
    const at::Tensor gradient = tuning->weights().gradient(module->linear.canonical + ".weight");
    float& most = module->linear.role == LinearRole::expert ? reach.experts : reach.attention;
    if (gradient.defined()) most = std::max(most, gradient.abs().max().item<float>());
  }
  return reach;
}

TEST(LayerTuning, TheSameRouterReachesAttentionAndNoExpert) {
  const Reach reach = reach_of(TuneRouter::same, 1);
  EXPECT_GT(reach.attention, 0);
  EXPECT_EQ(reach.experts, 0);
}

TEST(LayerTuning, TheNextRouterReachesTheExperts) {
  for (const TuneRouter router : {TuneRouter::next, TuneRouter::both}) {
    const Reach reach = reach_of(router, 1);
    EXPECT_GT(reach.attention, 0);
    EXPECT_GT(reach.experts, 0);
  }
}

TEST(LayerTuning, TheLastLayerHasNoNextRouter) {
  const Reach reach = reach_of(TuneRouter::next, 3);
  EXPECT_EQ(reach.attention, 0);
  EXPECT_EQ(reach.experts, 0);
  EXPECT_GT(reach_of(TuneRouter::both, 3).attention, 0);
}

TEST(LayerTuning, WithoutTermsVsraqIsAutoround) {
  Recipe recipe = recipe_for("vsraq", "w3a16-g128");
  const LayerOutput tuned = LayerSubject(kDemo, 1, recipe).run();
  recipe.tune.objective = parse_objective("mse=1,value=0,order=0,boundary=0");
  const LayerOutput off = LayerSubject(kDemo, 1, recipe).run();
  const LayerOutput autoround = LayerSubject(kDemo, 1, recipe_for("autoround", "w3a16-g128")).run();
  EXPECT_TRUE(same_weights(off, autoround));
  EXPECT_FALSE(same_weights(tuned, autoround));
}

TEST(LayerTuning, PlainValueIsTopkMse) {
  Recipe topk = recipe_for("topk-mse", "w3a16-g128"), value = recipe_for("vsraq", "w3a16-g128");
  topk.tune.loss_k = value.tune.loss_m = 2;
  value.tune.objective = parse_objective("mse=1,value=0.1,order=0,boundary=0");
  value.tune.router = TuneRouter::same;
  value.tune.value_weights = ValueWeights::none;
  value.tune.centring = false;
  const LayerOutput a = LayerSubject(kDemo, 1, topk).run(), b = LayerSubject(kDemo, 1, value).run();
  EXPECT_TRUE(same_weights(a, b));
  value.tune.centring = true;
  EXPECT_FALSE(same_weights(a, LayerSubject(kDemo, 1, value).run()));
}

Json tuning_of(const LayerOutput& output) { return parse_json(output.log, "log")["tuning"]; }

class Tuned : public ::testing::TestWithParam<std::tuple<const char*, TuneBase, std::string>> {};

TEST_P(Tuned, LowersTheErrorOfTheLayer) {
  const auto [scheme, base, device] = GetParam();
  Recipe recipe = recipe_for("autoround", scheme);
  recipe.tune.base = base;
  recipe.tune.iters = 16;
  recipe.tune.batch_size = 4;  // all: steps are comparable
  const LayerSubject subject(kDemo, 2, recipe);
  const Json tuning = tuning_of(subject.run(options_on(device)));
  const Json& mse = tuning["terms"]["mse"];
  const double first = mse["first"].get<double>(), best = mse["best"].get<double>();
  EXPECT_LT(best, (base == TuneBase::rounding ? 0.6 : 0.97) * first);
  EXPECT_GT(tuning["best_step"].get<int>(), 0);
  std::printf("%s %s: %.4e -> %.4e\n", scheme, tune_base_name(base), first, best);
  if (device == "cpu") return;
  const Json on_cpu = tuning_of(subject.run())["terms"]["mse"];
  EXPECT_NEAR(first, on_cpu["first"].get<double>(), 1e-4 * first);
  EXPECT_NEAR(best, on_cpu["best"].get<double>(), 0.05 * best);  // signs of tiny gradients part the ways
}

INSTANTIATE_TEST_SUITE_P(Cases, Tuned,
                         ::testing::Combine(::testing::Values("w3a16-g128", "w3a16-g64-asym", "w2a16-channel"),
                                            ::testing::Values(TuneBase::rounding, TuneBase::clipping),
                                            ::testing::ValuesIn(devices())),
                         [](const auto& info) {
                           std::string name = std::string(std::get<0>(info.param)) + "_" +
                                              tune_base_name(std::get<1>(info.param)) + "_" + std::get<2>(info.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(LayerTuning, InBfloat16StaysNear) {
  Recipe recipe = recipe_for("vsraq", "w3a16-g128");
  recipe.tune.batch_size = 4;
  const LayerSubject subject(kDemo, 1, recipe);
  for (const std::string& device : devices()) {
    twin::Options options = options_on(device);
    const LayerOutput single = subject.run(options);
    options.compute_dtype = at::kBFloat16;
    const LayerOutput half = subject.run(options);
    EXPECT_FALSE(same_weights(single, half));
    const Json a = tuning_of(single)["terms"]["mse"], b = tuning_of(half)["terms"]["mse"];
    EXPECT_NEAR(a["first"].get<double>(), b["first"].get<double>(), 0.05 * a["first"].get<double>());
    EXPECT_NEAR(a["best"].get<double>(), b["best"].get<double>(), 0.3 * a["best"].get<double>());
    EXPECT_LT(b["best"].get<double>(), 0.9 * b["first"].get<double>());
  }
}

TEST(LayerTuning, WhatIsWrittenIsWhatWasTuned) {
  Recipe recipe = recipe_for("autoround", "w3a16-g128");
  recipe.tune.batch_size = 4;
  recipe.tune.iters = 20;
  const LayerSubject subject(kDemo, 1, recipe, 4, 128);  // every expert sees tokens
  const LayerOutput output = subject.run();
  const double best = parse_json(output.log, "log")["tuning"]["terms"]["mse"]["best"].get<double>();
  // The exported matrices through the twin, on the same states.
  const twin::Options options;
  twin::Layer layer(subject.spec, 1, options);
  const auto parameters = twin::load_parameters(twin::list_layer_parameters(subject.spec, 1), subject.source, options);
  const auto states = [&](const HiddenStates& h) {
    return at::from_blob(const_cast<float*>(h.row(0)), {h.sequences(), h.seqlen(), h.hidden_size()},
                         at::TensorOptions().dtype(at::kFloat));
  };
  const at::NoGradGuard no_graph;
  const at::Tensor expected =
      layer.forward(states(subject.original), [&](const std::string& name) { return parameters[name]; });
  bool negative = false;
  const at::Tensor actual = layer.forward(states(subject.quantized), [&](const std::string& name) {
    const auto at = output.weights.find(name.substr(0, name.rfind(".weight")));
    if (at == output.weights.end()) return parameters[name];
    for (const float scale : at->second.scales) negative |= scale < 0;
    const at::Tensor out = at::empty({at->second.rows, at->second.cols}, at::TensorOptions().dtype(at::kFloat));
    dequantize(at->second, {out.mutable_data_ptr<float>(), static_cast<std::size_t>(out.numel())});
    return out;
  });
  EXPECT_TRUE(negative);
  EXPECT_NEAR(output_error(expected, actual).item<double>(), best, 1e-4 * best);
}

TEST(LayerTuning, ExpertsWithoutTokensAreRoundedToNearest) {
  Recipe recipe = recipe_for("vsraq", "w4a16-g128");
  recipe.tune.iters = 3;
  const LayerSubject subject(kDemo, 1, recipe, 1, 3);  // in each step 3 tokens reach 6 of 16 experts at most
  const LayerOutput output = subject.run();
  const Json log = parse_json(output.log, "log");
  EXPECT_GE(log["starved_experts"].get<int>(), 10);
  int idle = 0;
  for (const PlannedModule* module : subject.input.modules) {
    if (module->linear.role != LinearRole::expert) continue;
    const Json& entry = log["modules"][module->linear.module];
    if (!entry.contains("calibrated_on")) continue;
    ++idle;
    const LinearRef& linear = module->linear;
    const Tensor weight = to_float_matrix(subject.source.weight(linear.canonical, linear.rows, linear.cols), "");
    const QuantTensor rtn = quantize_rtn({weight.data<float>(), static_cast<std::size_t>(weight.size())}, linear.rows,
                                         linear.cols, *module->args, module->scale_dtype());
    EXPECT_EQ(output.weights.at(linear.canonical).codes, rtn.codes);
  }
  EXPECT_EQ(log["untuned_matrices"].get<int>(), idle);
  EXPECT_GE(idle, 3);

  recipe.parameters.expert_fallback = ExpertFallback::error;
  try {
    LayerSubject(kDemo, 1, recipe, 1, 3).run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("calibration tokens"), std::string::npos) << error.what();
  }
}

TEST(LayerTuning, RefusesStatesThatAreNotFinite) {
  LayerSubject subject(kDemo, 1, recipe_for("autoround", "w4a16-g128"));
  subject.quantized.row(0)[5] = std::numeric_limits<float>::quiet_NaN();
  try {
    subject.run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("not finite"), std::string::npos) << error.what();
  }
}

TEST(LayerTuning, ALayerThatIsKeptHasNothingToTune) {
  Recipe recipe = recipe_for("vsraq", "w4a16-g128");
  recipe.overrides.push_back({ModulePattern("model.layers.1.*"), std::nullopt});
  EXPECT_TRUE(LayerSubject(kDemo, 1, recipe).run().weights.empty());
  recipe.overrides.front().pattern = ModulePattern("*.mlp.*");
  const LayerOutput attention = LayerSubject(kDemo, 1, recipe).run();
  EXPECT_EQ(attention.weights.size(), 4u);
}

TEST(LayerTuning, RunsTwiceToTheSameBits) {
  const Recipe recipe = recipe_for("vsraq", "w3a16-g128");
  for (const std::string& device : devices()) {
    SCOPED_TRACE(device);
    const twin::Options options = options_on(device);
    const LayerOutput a = LayerSubject(kDemo, 0, recipe).run(options), b = LayerSubject(kDemo, 0, recipe).run(options);
    EXPECT_TRUE(same_weights(a, b));
    EXPECT_EQ(a.log, b.log);
  }
}

class EveryFamily : public ::testing::TestWithParam<std::string> {};

/// Sigmoid scores, groups, selection bias, latent attention, a dense layer first.
TEST_P(EveryFamily, IsTunedInEveryLayer) {
  const twin::Options options = options_on(GetParam());
  for (const char* family : {"deepseek_v3", "olmoe", "qwen3_moe", "mixtral"}) {
    for (const char* scheme : {"w4a16-g32", "w3a16-channel-asym"}) {
      SCOPED_TRACE(std::string(family) + " " + scheme);
      Recipe recipe = recipe_for("vsraq", scheme);
      recipe.tune.iters = 4;
      recipe.tune.phi = HingeShape::softplus;
      recipe.tune.objective = parse_objective("mse=1,value=0.1,order=0.1,boundary=0.1,kl=0.1,kl-full=0.1,topk-mse=0.1");
      const int layers = LayerSubject(kGoldens / family, 0, recipe).spec.num_hidden_layers;
      for (int layer = 0; layer < layers; ++layer) {
        const LayerSubject subject(kGoldens / family, layer, recipe);
        const Json log = parse_json(subject.run(options).log, "log");
        // mse; six terms for each router in view
        const std::size_t routers = (log.contains("expert_tokens") ? 1u : 0u) + (layer + 1 < layers ? 1u : 0u);
        EXPECT_EQ(log["tuning"]["terms"].size(), 1 + 6 * routers) << log["tuning"].dump();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EveryFamily, ::testing::ValuesIn(devices()),
                         [](const auto& info) { return info.param; });

TEST(BatchSampler, EachSequenceOnceBeforeAnyTwice) {
  BatchSampler sampler(7, 3, 1);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 2; ++i) {
    for (const std::int64_t s : sampler.next()) EXPECT_TRUE(seen.insert(s).second && s >= 0 && s < 7);
  }
  EXPECT_EQ(sampler.next().size(), 3u);
  EXPECT_EQ(BatchSampler(2, 8, 1).next().size(), 2u);
  EXPECT_EQ(BatchSampler(9, 4, 5).next(), BatchSampler(9, 4, 5).next());
}

}  // namespace
}  // namespace kedge
