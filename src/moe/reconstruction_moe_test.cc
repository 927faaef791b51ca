// Cheap errors against direct ones, ties, combine methods, the audit's known answers, what a spec may not say. What the
// layer computes is compared with PyTorch in reconstruction_moe_golden_test.cc.
#include "moe/reconstruction_moe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json.h"
#include "base/rng.h"
#include "kedge/error.h"
#include "nn/probe.h"

namespace kedge {
namespace {

std::vector<float> normals(std::int64_t count, std::uint64_t seed, double scale = 1) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(scale * rng.normal());
  return x;
}

template <class F>
void expect_error(ErrorCode code, const char* part, F&& run) {
  try {
    run();
    ADD_FAILURE() << "no error; expected one about: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

ErrorRouterSpec small_spec() {
  ErrorRouterSpec spec;
  spec.hidden_size = 48;
  spec.bottleneck = 10;
  spec.num_experts = 7;
  spec.num_experts_per_tok = 3;
  return spec;
}

std::vector<float> encoders_for(const ErrorRouterSpec& spec, std::uint64_t seed) {
  const std::int64_t size = spec.bottleneck * spec.hidden_size;
  std::vector<float> w = normals(spec.num_experts * size, seed, 1 / std::sqrt(double(spec.hidden_size)));
  for (std::int64_t e = 0; spec.orthonormal && e < spec.num_experts; ++e) {
    retract(Manifold::stiefel_qr, spec.bottleneck, spec.hidden_size, "encoder",
            std::span(w).subspan(static_cast<std::size_t>(e * size), static_cast<std::size_t>(size)));
  }
  return w;
}

/// Tokens of which every third lies within an expert's rows: there errors are near 0, where cheap forms cancel.
std::vector<float> tokens_for(const ErrorRouterSpec& spec, const std::vector<float>& encoders, std::int64_t tokens) {
  std::vector<float> x = normals(tokens * spec.hidden_size, 31);
  const std::vector<float> z = normals(tokens * spec.bottleneck, 32);
  for (std::int64_t t = 0; t < tokens; t += 3) {
    const float* u = encoders.data() + t % spec.num_experts * spec.bottleneck * spec.hidden_size;
    for (std::int64_t i = 0; i < spec.hidden_size; ++i) {
      float sum = 0;
      for (std::int64_t j = 0; j < spec.bottleneck; ++j) {
        sum += z[static_cast<std::size_t>(t * spec.bottleneck + j)] * u[j * spec.hidden_size + i];
      }
      x[static_cast<std::size_t>(t * spec.hidden_size + i)] = sum;
    }
  }
  return x;
}

struct Routed {
  std::vector<float> errors, weights;
  std::vector<std::int32_t> ids;
};

Routed route(const ErrorRouterSpec& spec, const std::vector<float>& encoders, const std::vector<float>& x,
             Isa isa = Isa::scalar, int threads = 1) {
  const auto router = ReconstructionRouter::load(spec, {encoders, nullptr}, {}, AnchorForm::decoded,
                                                 {isa, Numerics::consistent, Activations::fp32});
  const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / spec.hidden_size;
  ThreadPool pool(threads);
  Arena arena;
  ArenaScope scope(arena);
  const ErrorRouting out = router.route({pool, arena}, x.data(), tokens);
  return {{out.errors, out.errors + tokens * spec.num_experts},
          {out.weights, out.weights + tokens * spec.slots()},
          {out.expert_ids, out.expert_ids + tokens * spec.slots()}};
}

TEST(ErrorRouting, CheapFormsAreTheDirectOne) {
  for (const bool orthonormal : {false, true}) {
    for (const auto& act : {std::optional<FfnActivation>(), std::optional(FfnActivation::gelu)}) {
      for (const ErrorMeasure measure : {ErrorMeasure::squared, ErrorMeasure::cosine}) {
        ErrorRouterSpec spec = small_spec();
        spec.orthonormal = orthonormal;
        spec.activation = act;
        spec.measure = measure;
        spec.normalization = measure == ErrorMeasure::cosine ? ErrorNormalization::none : ErrorNormalization::input;
        EXPECT_EQ(error_path(spec), orthonormal ? ErrorPath::stiefel : ErrorPath::gram);
        const std::vector<float> encoders = encoders_for(spec, 5), x = tokens_for(spec, encoders, 300);
        const Routed cheap = route(spec, encoders, x);
        spec.always_direct = true;
        EXPECT_EQ(error_path(spec), ErrorPath::direct);
        const Routed direct = route(spec, encoders, x);
        int compared = 0;
        for (std::int64_t t = 0; t < 300; ++t) {
          const float *a = cheap.errors.data() + t * 7, *b = direct.errors.data() + t * 7;
          for (int e = 0; e < 7; ++e) EXPECT_NEAR(a[e], b[e], 1e-5) << t << " " << e;  // errors are relative to ||x||^2
          const std::int32_t* ids = direct.ids.data() + t * 3;
          for (int s = 0; s < 3; ++s) {
            // The slot is decided where the next expert is more than 1e-5 away on both sides.
            bool clear = true;
            for (std::int32_t e = 0; e < 7; ++e) clear = clear && (e == ids[s] || std::fabs(b[e] - b[ids[s]]) > 1e-5f);
            if (!clear) continue;
            EXPECT_EQ(cheap.ids[static_cast<std::size_t>(t * 3 + s)], ids[s]);
            ++compared;
          }
        }
        EXPECT_GT(compared, 800);
      }
    }
  }
}

TEST(ErrorRouting, EqualErrorsGoToTheLowerExperts) {
  ErrorRouterSpec spec = small_spec();
  std::vector<float> encoders = encoders_for(spec, 5);
  const std::size_t size = encoders.size() / 7;
  for (std::size_t e = 1; e < 7; ++e)
    std::copy_n(encoders.begin(), size, encoders.begin() + static_cast<std::ptrdiff_t>(e * size));
  std::vector<float> x = normals(5 * spec.hidden_size, 1);
  std::fill(x.begin(), x.begin() + spec.hidden_size, 0.0f);  // a token of zeros: every error is 0
  for (const bool direct : {false, true}) {
    spec.always_direct = direct;
    for (const Isa isa : available_isas()) {
      const Routed out = route(spec, encoders, x, isa);
      for (std::size_t i = 0; i < out.ids.size(); ++i) {
        EXPECT_EQ(out.ids[i], static_cast<std::int32_t>(i % 3));
        EXPECT_FLOAT_EQ(out.weights[i], 1.0f / 3);
      }
      EXPECT_EQ(out.errors[0], 0.0f);
    }
  }
}

TEST(ErrorRouting, WeightsAreStableAtAnyScaleOfTheErrors) {
  ErrorRouterSpec spec = small_spec();
  spec.num_experts = 4;
  const float errors[] = {1e30f, 2e30f, 1e30f, 3e30f, 1e-30f, 1, 2, 3, std::numeric_limits<float>::quiet_NaN(),
                          5,     4,     4.1f};
  std::int32_t ids[9];
  float weights[9];
  select_by_error(spec, errors, 3, ids, weights, Isa::scalar);
  EXPECT_EQ(std::vector<std::int32_t>(ids, ids + 9), (std::vector<std::int32_t>{0, 2, 1, 0, 1, 2, 2, 3, 1}));
  EXPECT_EQ(weights[0], 0.5f);
  EXPECT_EQ(weights[2], 0.0f);
  EXPECT_NEAR(weights[4], std::exp(-10.0) / (1 + std::exp(-10.0) + std::exp(-20.0)), 1e-9);
  EXPECT_NEAR(weights[7], std::exp(-1.0) / (1 + std::exp(-1.0) + std::exp(-10.0)), 1e-5);
}

/// What error routing is compared with is the router of the other families.
TEST(ErrorRouting, ALearnedRouterIsMixtrals) {
  ErrorRouterSpec spec = small_spec();
  spec.measure = ErrorMeasure::linear;
  spec.normalization = ErrorNormalization::none;
  spec.bottleneck = 1;
  spec.temperature = 1;
  const std::vector<float> gate = normals(7 * 48, 8, 0.3), x = normals(40 * 48, 9);
  const Routed routed = route(spec, gate, x, detect_isa());
  const RouterSpec softmax = as_router_spec({spec, ExpertOutput::ffn, 16});
  EXPECT_TRUE(is_valid(softmax));
  std::vector<float> logits(40 * 7), weights(40 * 3), scores(40 * 7);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = -routed.errors[i];
  std::vector<std::int32_t> ids(40 * 3);
  kedge::route(softmax, logits.data(), 40, {}, ids.data(), weights.data(), scores.data(), detect_isa());
  EXPECT_EQ(routed.ids, ids);
  for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(routed.weights[i], weights[i], 1e-6);
  for (std::size_t t = 0; t < 40; ++t) {
    for (std::size_t e = 0; e < 7; ++e) {
      double z = 0;
      for (std::size_t k = 0; k < 48; ++k) z += double{x[t * 48 + k]} * gate[e * 48 + k];
      EXPECT_NEAR(logits[t * 7 + e], z, 1e-5);
    }
  }
}

TEST(ErrorRouting, RefusesWhatCannotBe) {
  const auto refused = [](const char* part, auto&& change) {
    ErrorRouterSpec spec = small_spec();
    change(spec);
    expect_error(ErrorCode::usage, part, [&] { check_error_router(spec); });
  };
  check_error_router(small_spec());
  refused("8 of 7 experts", [](ErrorRouterSpec& s) { s.num_experts_per_tok = 8; });
  refused("0 of 7 experts", [](ErrorRouterSpec& s) { s.num_experts_per_tok = 0; });
  refused("bottleneck of 49", [](ErrorRouterSpec& s) { s.bottleneck = 49; });
  refused("temperature of 0.0", [](ErrorRouterSpec& s) { s.temperature = 0; });
  refused("temperature of nan", [](ErrorRouterSpec& s) { s.temperature = std::nanf(""); });
  refused("temperature of -1", [](ErrorRouterSpec& s) { s.temperature = -1; });
  refused("delta of 0", [](ErrorRouterSpec& s) { s.measure = ErrorMeasure::huber, s.huber_delta = 0; });
  refused("cosine", [](ErrorRouterSpec& s) { s.measure = ErrorMeasure::cosine; });
  refused("linear", [](ErrorRouterSpec& s) { s.measure = ErrorMeasure::linear; });
  expect_error(ErrorCode::usage, "is no combine method", [] { parse_combine_method("mean"); });
  EXPECT_EQ(parse_error_measure("huber"), ErrorMeasure::huber);
  EXPECT_EQ(parse_error_normalization("width"), ErrorNormalization::width);

  ErrorRouterSpec spec = small_spec();
  const std::vector<float> encoders = encoders_for(spec, 5);
  spec.orthonormal = true;
  expect_error(ErrorCode::mismatch, "from orthonormal", [&] { route(spec, encoders, {}); });
  spec = small_spec();
  spec.tied = false;
  expect_error(ErrorCode::mismatch, "no decoders", [&] { route(spec, encoders, {}); });
  std::vector<float> nan = encoders;
  nan[3] = std::nanf("");
  expect_error(ErrorCode::bad_file, "NaN", [&] { route(small_spec(), nan, {}); });
}

TEST(ReconstructionMoe, WantsTheMatricesOfItsSpec) {
  ReconstructionMoe spec{small_spec(), ExpertOutput::ffn, 16, FfnActivation::silu, true};
  const std::vector<float> encoders = encoders_for(spec.router, 5), ffn = normals(7 * 16 * 48, 6);
  const auto load = [&](const ReconstructionMoeWeights& weights) {
    return ReconstructionMoeBlock::load(spec, weights, AnchorForm::split, {});
  };
  const ExpertMatrices e{encoders, nullptr}, f{ffn, nullptr};
  load({e, {}, f, f, f});
  expect_error(ErrorCode::mismatch, "no gate weights", [&] { load({e, {}, {}, f, f}); });
  expect_error(ErrorCode::mismatch, "no down weights", [&] { load({e, {}, f, f, {}}); });
  expect_error(ErrorCode::mismatch, "no encoder weights", [&] { load({{}, {}, f, f, f}); });
  expect_error(ErrorCode::mismatch, "weights of their own", [&] { load({e, f, f, f, f}); });
  spec.gated = false;
  expect_error(ErrorCode::mismatch, "gate weights that nothing reads", [&] { load({e, {}, f, f, f}); });
  spec.output = ExpertOutput::reconstruction;
  expect_error(ErrorCode::mismatch, "up weights that nothing reads", [&] { load({e, {}, {}, f, {}}); });
}

TEST(ReconstructionMoe, RoutingIsASmallPartOfTheFfnConfigurationsWork) {
  // The medium size of the papers (d 1024, r 128, ff 4096, E 8, k 2), every length divided by 16.
  ReconstructionMoe spec{small_spec(), ExpertOutput::ffn, 256, FfnActivation::gelu, false};
  spec.router.hidden_size = 64;
  spec.router.bottleneck = 8;
  spec.router.num_experts = 8;
  spec.router.num_experts_per_tok = 2;
  const std::vector<float> encoders = encoders_for(spec.router, 5), ffn = normals(8 * 256 * 64, 6);
  const ReconstructionMoeWeights weights{{encoders, nullptr}, {}, {}, {ffn, nullptr}, {ffn, nullptr}};
  const auto block = ReconstructionMoeBlock::load(spec, weights, AnchorForm::split, {});
  const LayerFlops flops = block.flops(32);
  EXPECT_EQ(flops.routing, 2 * 32 * 8 * (8 * 64 + 8 * 8));
  EXPECT_EQ(flops.experts, 2 * 32 * 2 * (2 * 64 * 256));
  EXPECT_LE(10 * flops.routing, flops.experts);
  EXPECT_NE(block.explain().find("errors: gram"), std::string::npos) << block.explain();
}

/// Keeps what the probe is told.
struct Listener : ForwardProbe {
  unsigned sites() const noexcept override { return static_cast<unsigned>(Site::routing); }
  void routing(int layer, const RoutingDecision& decision) override {
    layers.push_back(layer);
    ids.assign(decision.expert_ids.begin(), decision.expert_ids.end());
    scores.assign(decision.scores.begin(), decision.scores.end());
    errors.assign(decision.errors.begin(), decision.errors.end());
    residual_norms.assign(decision.residual_norms.begin(), decision.residual_norms.end());
  }
  std::vector<int> layers;
  std::vector<std::int32_t> ids;
  std::vector<float> scores, errors, residual_norms;
};

TEST(ReconstructionMoe, AuditAndProbeTellWhatWasRoutedAndScratchIsTakenOnce) {
  const ReconstructionMoe spec{small_spec()};
  const std::vector<float> encoders = encoders_for(spec.router, 5), x = normals(20 * 48, 1);
  const auto block = ReconstructionMoeBlock::load(spec, {{encoders, nullptr}, {}, {}, {}, {}}, AnchorForm::split, {});
  ThreadPool pool(2);
  Arena arena;
  Listener listener;
  RoutingAudit audit;
  std::vector<float> y(x.size()), again(x.size());
  block.forward({pool, arena, &listener}, 3, x.data(), 20, y.data(), &audit);
  EXPECT_EQ(listener.layers, std::vector<int>{3});
  EXPECT_EQ(listener.ids, audit.token_experts);
  for (std::size_t i = 0; i < audit.all_errors.size(); ++i) {
    EXPECT_EQ(listener.scores[i], -audit.all_errors[i] / spec.router.temperature);
    EXPECT_EQ(listener.errors[i], audit.all_errors[i]);
  }
  EXPECT_EQ(listener.residual_norms, audit.residual_norms);

  const std::size_t taken = arena.capacity();
  for (std::int64_t tokens : {20, 7, 20}) block.forward({pool, arena}, 0, x.data(), tokens, again.data());
  EXPECT_EQ(arena.capacity(), taken);
  EXPECT_EQ(again, y);
  block.forward({pool, arena}, 0, x.data() + 5 * 48, 1, again.data());  // alone as in the batch
  EXPECT_EQ(std::vector<float>(again.begin(), again.begin() + 48),
            std::vector<float>(y.begin() + 240, y.begin() + 288));

  double largest = 0, sum = 0;
  for (std::size_t t = 0; t < 20; ++t) {
    double square = 0;
    for (std::size_t i = 0; i < 48; ++i) square += std::pow(double{x[t * 48 + i]} - y[t * 48 + i], 2);
    EXPECT_NEAR(audit.residual_norms[t], std::sqrt(square), 1e-5);
    largest = std::max(largest, std::sqrt(square));
    sum += std::sqrt(square);
  }
  EXPECT_NEAR(audit.max_residual_norm, largest, 1e-5);
  EXPECT_NEAR(audit.mean_residual_norm, sum / 20, 1e-5);
  const Json json = to_json(audit);
  EXPECT_EQ(json["token_experts"][19][2], audit.token_experts[59]);
  EXPECT_EQ(json["all_errors"].size(), 20u);
  EXPECT_EQ(json["experts_per_token"], 3);
  block.forward({pool, arena}, 0, x.data(), 0, y.data(), &audit);
  EXPECT_EQ(audit.mean_residual_norm, 0);
  EXPECT_EQ(audit.dead_experts.size(), 7u);
}

TEST(RoutingAudit, KnownEntropies) {
  const auto bits = [](std::vector<std::int64_t> counts) { return load_entropy_bits(counts); };
  EXPECT_NEAR(bits({8, 7, 1, 0}), 1.272, 5e-4);
  EXPECT_NEAR(bits({8, 6, 2, 0}), 1.406, 5e-4);
  EXPECT_NEAR(bits({7, 6, 3, 0}), 1.505, 5e-4);
  EXPECT_NEAR(bits({4, 4, 4, 4}), 2, 1e-12);
  EXPECT_EQ(bits({9, 0, 0}), 0);
  EXPECT_EQ(bits({0, 0}), 0);
}

TEST(RoutingAudit, CountsUseAndDeath) {
  const std::vector<std::int32_t> ids{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 2};  // counts 8, 7, 1, 0
  const std::vector<float> weights(16, 0.5f), errors(32, 1.0f), x(16, 2.0f), y(16, 0.0f);
  const RoutingAudit audit =
      audit_batch({8, 4, 2, 2, ids.data(), weights.data(), errors.data(), x.data(), y.data()}, Isa::scalar);
  EXPECT_EQ(audit.expert_counts, (std::vector<std::int64_t>{8, 7, 1, 0}));
  EXPECT_NEAR(audit.load_entropy_bits, 1.272, 5e-4);
  EXPECT_NEAR(audit.max_entropy_bits, 2, 1e-12);
  EXPECT_EQ(audit.most_used, 0);
  EXPECT_EQ(audit.least_used, 3);
  EXPECT_EQ(audit.dead_experts, std::vector<std::int32_t>{3});
  EXPECT_NEAR(audit.mean_residual_norm, std::sqrt(8.0), 1e-6);
}

}  // namespace
}  // namespace kedge
