// Training on manifolds with a shared anchor and rounded deltas: tangents against the retraction itself, rounding
// against the file format's encoder, and that the engine computes what was trained.
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "io/test_files.h"
#include "model/testing.h"
#include "train/checkpoint.h"
#include "train/manifold.h"
#include "train/rounding.h"
#include "train/trainer.h"
#include "twin/anchored.h"
#include "twin/testing.h"

namespace kedge::training {
namespace {

using testing_model::max_abs_difference;
using twin::testing::from_ids;
using twin::testing::to_floats;

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::TensorOptions().dtype(at::kDouble)); }

TEST(Manifolds, ProjectionLeavesWhatTheRetractionMovesAlong) {
  for (const Manifold manifold : {Manifold::sphere, Manifold::stiefel_polar, Manifold::stiefel_qr}) {
    SCOPED_TRACE(manifold_name(manifold));
    const at::Tensor w = twin::retract(manifold, random({3, 5, 16})), u = random({3, 5, 16});
    const at::Tensor tangent = project_to_tangent(manifold, w, u), rest = u - tangent;
    EXPECT_LE((project_to_tangent(manifold, w, tangent) - tangent).abs().max().item<double>(), 1e-12);
    constexpr double kStep = 1e-6;
    for (int i = 0; i < 8; ++i) {
      // A direction in which points of the manifold lie: what is left out of u has no part in it.
      const at::Tensor along = (twin::retract(manifold, w + kStep * random({3, 5, 16})) - w) / kStep;
      EXPECT_LE((rest * along).sum().abs().item<double>(),
                1e-4 * rest.norm().item<double>() * along.norm().item<double>());
    }
    // And the retraction follows the tangent to first order.
    const at::Tensor moved = (twin::retract(manifold, w + kStep * tangent) - w) / kStep;
    const double error = (moved - tangent).norm().item<double>() / tangent.norm().item<double>();
    if (manifold != Manifold::stiefel_qr) {
      EXPECT_LE(error, 1e-4);
    }
    EXPECT_GT(rest.norm().item<double>(), 0.1 * u.norm().item<double>());
  }
}

TEST(Rounding, IsThatOfTheStoredModel) {
  for (const DType anchor : {DType::f16, DType::bf16, DType::i8}) {
    for (const int bits : {4, 2}) {
      for (const Manifold manifold : {Manifold::sphere, Manifold::none}) {
        SCOPED_TRACE(std::string(dtype_name(anchor)) + " int" + std::to_string(bits) + " " + manifold_name(manifold));
        const AnchorDeltaArgs args{anchor, bits, 32, manifold};
        const at::Tensor common = random({1, 6, 64}), own = random({4, 6, 64});
        const at::Tensor w = twin::retract(manifold, common + 0.5 * own).to(at::kFloat).set_requires_grad(true);
        const at::Tensor rounded = twin::encoded_weights(args, w);
        const std::vector<float> values = to_floats(w);
        const AnchorDelta stored = encode_anchor_delta(values, 4, 6, 64, args, {}, "w");
        std::vector<float> decoded(6 * 64);
        for (std::int64_t e = 0; e < 4; ++e) {
          decode(stored, e, decoded);
          EXPECT_LE(max_abs_difference(decoded, to_floats(rounded.select(0, e))), 1e-6) << e;
        }
        // Straight through: the gradient is that of the retraction alone.
        const at::Tensor weights = at::randn({4, 6, 64});
        (rounded * weights).sum().backward();
        const at::Tensor smooth = w.detach().clone().set_requires_grad(true);
        (twin::retract(manifold, smooth) * weights).sum().backward();
        const double relative = (w.grad() - smooth.grad()).norm().item<double>() / smooth.grad().norm().item<double>();
        EXPECT_LE(relative, bits == 4 ? 0.2 : 0.8);
        if (manifold == Manifold::none) {
          EXPECT_LE(relative, 1e-6);
        }
      }
    }
  }
}

Json tiny_config() {
  return {{"model_type", "kedge_mcqsmoe"},
          {"vocab_size", 64},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"max_position_embeddings", 64},
          {"num_experts", 4},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 128},
          {"hidden_act", "gelu"},
          {"router_bottleneck", 8},
          {"router_manifold", "stiefel-polar"},
          {"expert_delta_bits", 4},
          {"expert_group_size", 32},
          {"dtype", "float32"}};
}

ModelSpec spec_of(const Json& config) { return family_of(config, "test").spec(config, "test"); }

/// Sequences with something to learn: each token is a multiple of the one before.
std::vector<std::int32_t> sequence(std::int32_t factor, std::int64_t length) {
  std::vector<std::int32_t> ids{factor};
  while (static_cast<std::int64_t>(ids.size()) < length) ids.push_back((ids.back() * factor + 1) % 64);
  return ids;
}

at::Tensor batch(std::int64_t rows, std::int64_t length) {
  std::vector<std::int32_t> ids;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::vector<std::int32_t> row = sequence(static_cast<std::int32_t>(3 + 2 * r), length);
    ids.insert(ids.end(), row.begin(), row.end());
  }
  return from_ids(ids, {rows, length});
}

std::unique_ptr<Trainer> trained(const Json& config, std::int64_t steps, std::int64_t round_from,
                                 const twin::Options& options = {}) {
  at::set_num_threads(1);
  const ModelSpec spec = spec_of(config);
  TrainerSettings settings;
  settings.round_from = round_from;
  auto trainer =
      std::make_unique<Trainer>(spec, twin::random_parameters(twin::list_parameters(spec), 5, {}), settings, options);
  trainer->place_on_manifolds();
  double first = 0, last = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    last = trainer->step(batch(8, 24), 3e-3, step).loss;
    if (step == 1) first = last;
  }
  EXPECT_LT(last, 0.8 * first);
  return trainer;
}

double worst_norm(const at::Tensor& stack) {
  return (stack.detach().to(at::kDouble).norm(2, -1) - 1).abs().max().item<double>();
}

class ByErrorOn : public ::testing::TestWithParam<std::string> {};

TEST_P(ByErrorOn, StepsStayOnTheManifoldsAndReachEveryWeight) {
  const Json config = tiny_config();
  const ModelSpec spec = spec_of(config);
  const twin::Parameters first = twin::random_parameters(twin::list_parameters(spec), 5, {});
  const auto trainer = trained(config, 30, 8, twin::testing::options_on(GetParam()));
  for (const TrainedWeight& weight : trainer->weights().trained()) {
    if (weight.name.find(".mlp.experts.") != std::string::npos) {
      EXPECT_LE(worst_norm(weight.value), 1e-6) << weight.name;
      EXPECT_GT(weight.value.grad().abs().max().item<double>(), 0) << weight.name;
    }
    if (weight.name.ends_with(".mlp.gate.weight")) {
      const std::vector<float> encoders = to_floats(weight.value);
      for (std::size_t e = 0; e < 4; ++e) {
        EXPECT_LE(orthonormality_error(std::span(encoders).subspan(e * 8 * 64, 8 * 64), 8, 64), 3e-7) << weight.name;
      }
      const at::Tensor begun = twin::retract(Manifold::stiefel_polar, first[weight.name].view({4, 8, 64}));
      EXPECT_GT((weight.value.detach().to(at::kCPU).view({4, 8, 64}) - begun).abs().max().item<double>(), 1e-3)
          << weight.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ByErrorOn, ::testing::ValuesIn(twin::testing::devices()),
                         [](const auto& info) { return info.param; });

/// Logits and routing of a model directory by the engine, and by the twin with these weights.
void expect_same(const std::filesystem::path& folder, const twin::Model& twin, const twin::WeightFunction& weights) {
  testing_model::Runner runner(Checkpoint::open(folder), {detect_isa(), Numerics::consistent, Activations::fp32});
  testing_model::Recorder recorder;
  const std::vector<std::int32_t> tokens = sequence(7, 40);
  const std::vector<float> engine = runner.sequence(tokens, &recorder);
  const at::NoGradGuard no_gradients;
  twin::Model model(twin.spec(), twin.parameters(), twin.options());
  const twin::Output output = model.forward(from_ids(tokens, {1, 40}), weights);
  EXPECT_LE(max_abs_difference(engine, to_floats(output.logits)), 1e-4);
  ASSERT_EQ(output.routing.size(), 2u);
  for (const twin::Routing& routing : output.routing) {
    EXPECT_EQ(recorder.ids[routing.layer], twin::testing::to_integers(routing.expert_ids));
    EXPECT_LE(max_abs_difference(recorder.weights[routing.layer], to_floats(routing.weights)), 1e-4);
    EXPECT_LE(max_abs_difference(recorder.router_logits[routing.layer], to_floats(routing.logits)), 1e-4);
  }
}

TEST(ByError, TheEngineRunsWhatWasTrained) {
  for (const char* kind : {"by error", "trained temperature", "learned router", "dense"}) {
    SCOPED_TRACE(kind);
    Json config = tiny_config();
    if (kind == std::string("trained temperature")) {
      config["router_temperature_trained"] = true;
    } else if (kind == std::string("learned router")) {
      config.erase("router_bottleneck");
      config.erase("router_manifold");
      config["router_error"] = "linear";
    } else if (kind == std::string("dense")) {
      config["mlp_only_layers"] = {0, 1};
      config["intermediate_size"] = 96;
    }
    const auto trainer = trained(config, 25, 5);
    if (kind == std::string("trained temperature")) {
      for (const int layer : {0, 1}) {
        const auto name = "model.layers." + std::to_string(layer) + ".mlp.gate.log_temperature";
        EXPECT_GT(std::fabs(trainer->weights().value(name).item<float>()), 1e-3) << name;
      }
    }
    const TempFolder folder;
    write_checkpoint(folder.path(), *trainer, {config, {}}, 25, Json::object());
    write_model(folder.path(), *trainer, {config, {}}, "float32");

    const twin::Options options{.stacked_experts = true};
    const twin::Model twin(trainer->spec(), trainer->weights().parameters(), options);
    const auto stacks = anchored_stacks(trainer->spec());
    const bool dense = kind == std::string("dense");
    EXPECT_EQ(stacks.size(), dense ? 0u : 4u);
    const std::filesystem::path masters = folder.path() / "checkpoint-000025";
    EXPECT_EQ(Checkpoint::open(folder.path()).quant_format(), dense ? "" : "kedge/anchor-delta");
    if (dense) {
      testing_model::Runner runner(Checkpoint::open(folder.path()),
                                   {detect_isa(), Numerics::consistent, Activations::fp32});
      const std::vector<std::int32_t> tokens = sequence(7, 40);
      const at::NoGradGuard no_gradients;
      twin::Model model(twin.spec(), twin.parameters(), options);
      EXPECT_LE(max_abs_difference(runner.sequence(tokens), to_floats(model.forward(from_ids(tokens, {1, 40})).logits)),
                1e-4);
      continue;
    }
    expect_same(masters, twin, twin.weights());
    expect_same(folder.path(), twin, rounded_weights(twin.parameters(), stacks));
    // The twin reads what was written.
    const twin::Model read = twin::Model::load(Checkpoint::open(folder.path()));
    expect_same(folder.path(), read, read.weights());
  }
}

TEST(ByError, ATemperatureThatIsNoneIsRefused) {
  Json config = tiny_config();
  config["router_temperature_trained"] = true;
  const auto trainer = trained(config, 25, 5);
  for (const float bad : {NAN, 1e6f, -1e6f}) {
    const at::NoGradGuard no_gradients;
    trainer->weights().value("model.layers.1.mlp.gate.log_temperature").fill_(bad);
    const TempFolder folder;
    write_model(folder.path(), *trainer, {config, {}}, "float32");
    try {
      testing_model::Runner runner(Checkpoint::open(folder.path()), {});
      ADD_FAILURE() << "no error for " << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_file);
      EXPECT_NE(std::string(error.what()).find("log_temperature"), std::string::npos) << error.what();
    }
  }
}

TEST(ByError, AnAnchorOfAnotherHashIsRefused) {
  const Json config = tiny_config();
  const auto trainer = trained(config, 25, 5);
  const TempFolder folder;
  write_model(folder.path(), *trainer, {config, {}}, "float32");
  Json stored = read_json(folder.path() / "config.json");
  const std::string stack = "model.layers.1.mlp.experts.up_proj";
  stored["quantization_config"]["stacks"][stack]["anchor_sha256"] = std::string(64, '0');
  write_file_atomically(folder.path() / "config.json", stored.dump());
  try {
    testing_model::Runner runner(Checkpoint::open(folder.path()), {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_NE(std::string(error.what()).find(stack), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace kedge::training
