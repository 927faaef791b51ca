// Each term against its formula written out in double precision, and values that must be zero.
#include "ptq/methods_twin/objectives.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "twin/moe.h"
#include "twin/testing.h"

namespace kedge {
namespace {

using twin::testing::from_floats;

constexpr std::int64_t kTokens = 5, kExperts = 8, kTopK = 3;

struct Subject {
  explicit Subject(RouterSpec router) : spec(std::move(router)) {
    Rng rng(3);
    std::vector<float> z_values, moved, bias_values;
    for (std::int64_t i = 0; i < kTokens * kExperts; ++i) {
      z_values.push_back(static_cast<float>(rng.normal()));
      moved.push_back(z_values.back() + static_cast<float>(0.3 * rng.normal()));
    }
    for (std::int64_t e = 0; e < kExperts; ++e) bias_values.push_back(static_cast<float>(0.2 * rng.normal()));
    const at::Tensor bias = spec.selection_bias ? from_floats(bias_values, {kExperts}) : at::Tensor();
    z = z_values;
    z_hat = moved;
    original = twin::route(spec, from_floats(z_values, {kTokens, kExperts}), bias);
    quantized = twin::route(spec, from_floats(moved, {kTokens, kExperts}), bias);
    s = twin::testing::to_floats(original.ranked_scores());
    s_free = twin::testing::to_floats(original.scores);
    s_hat = twin::testing::to_floats(quantized.scores);
  }
  RouterPair pair(double margin = 0.4) const { return {spec, original, quantized, margin}; }
  double term(ObjectiveTerm t, const TuneParameters& p) const { return routing_term(t, pair(), p).item<double>(); }
  /// Experts of token t by rank.
  std::vector<std::int64_t> ranks(std::int64_t t) const {
    std::vector<std::int64_t> ids(kExperts);
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](auto a, auto b) { return at(s, t, a) > at(s, t, b); });
    return ids;
  }
  static double at(const std::vector<float>& x, std::int64_t t, std::int64_t e) {
    return x[static_cast<std::size_t>(t * kExperts + e)];
  }

  RouterSpec spec;
  twin::Routing original, quantized;
  std::vector<float> z, z_hat, s, s_free, s_hat;
};

RouterSpec softmax_router() {
  RouterSpec spec;
  spec.num_experts = kExperts;
  spec.num_experts_per_tok = kTopK;
  return spec;
}

RouterSpec grouped_router() {
  RouterSpec spec = softmax_router();
  spec.scoring_func = ScoringFunc::sigmoid;
  spec.selection_bias = true;
  spec.n_group = 4;
  spec.topk_group = 2;  // 4 of 8 experts survive
  return spec;
}

double mean_of(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / double(x.size()); }

TEST(Objectives, TopkMse) {
  const Subject subject(softmax_router());
  for (const std::int64_t k : {1, 3, 0}) {
    TuneParameters p;
    p.loss_k = k;
    const std::int64_t count = k > 0 ? k : 2 * kTopK;
    std::vector<double> all;
    for (std::int64_t t = 0; t < kTokens; ++t) {
      const auto ids = subject.ranks(t);
      for (std::int64_t i = 0; i < count; ++i) {
        all.push_back(std::pow(subject.at(subject.z_hat, t, ids[i]) - subject.at(subject.z, t, ids[i]), 2));
      }
    }
    EXPECT_NEAR(subject.term(ObjectiveTerm::topk_mse, p), mean_of(all), 1e-6);
  }
}

TEST(Objectives, Kl) {
  const Subject subject(softmax_router());
  for (const bool full : {false, true}) {
    std::vector<double> tokens;
    for (std::int64_t t = 0; t < kTokens; ++t) {
      double sum = 0, sum_hat = 0, value = 0;
      for (std::int64_t e = 0; e < kExperts; ++e) {
        sum += std::exp(subject.at(subject.z, t, e));
        sum_hat += std::exp(subject.at(subject.z_hat, t, e));
      }
      const auto ids = subject.ranks(t);
      for (std::int64_t i = 0; i < (full ? kExperts : kTopK); ++i) {
        const double log_p = subject.at(subject.z, t, ids[i]) - std::log(sum);
        value += std::exp(log_p) * (log_p - (subject.at(subject.z_hat, t, ids[i]) - std::log(sum_hat)));
      }
      tokens.push_back(value);
    }
    EXPECT_NEAR(subject.term(full ? ObjectiveTerm::kl_full : ObjectiveTerm::kl, {}), mean_of(tokens), 1e-6);
  }
}

/// The definition, for either router.
double value_by_hand(const Subject& subject, const TuneParameters& p, double margin) {
  const bool is_softmax = subject.spec.scoring_func == ScoringFunc::softmax;
  std::vector<double> tokens;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    double mean = 0, mean_hat = 0, sum = 0;
    for (std::int64_t e = 0; e < kExperts; ++e) {
      mean += subject.at(subject.z, t, e) / kExperts;
      mean_hat += subject.at(subject.z_hat, t, e) / kExperts;
      sum += std::exp(subject.at(subject.z, t, e));
    }
    if (!is_softmax || !p.centring) mean = mean_hat = 0;
    const auto ids = subject.ranks(t);
    const double b = (subject.at(subject.s, t, ids[kTopK - 1]) + subject.at(subject.s, t, ids[kTopK])) / 2;
    double above = 0, below = 0;
    for (std::int64_t i = 0; i < (p.loss_m > 0 ? p.loss_m : 2 * kTopK); ++i) {
      const double z = subject.at(subject.z, t, ids[i]), s = subject.at(subject.s, t, ids[i]);
      if (std::isinf(s)) continue;
      const double out = is_softmax ? std::exp(z) / sum : 1 / (1 + std::exp(-z));
      double w = p.value_weights == ValueWeights::none ? 1 : out * (1 - out);
      if (p.value_weights == ValueWeights::boundary) w *= std::exp(-std::fabs(s - b) / (p.tau * margin));
      above += w * std::pow((subject.at(subject.z_hat, t, ids[i]) - mean_hat) - (z - mean), 2);
      below += w;
    }
    tokens.push_back(above / below);
  }
  return mean_of(tokens);
}

TEST(Objectives, Value) {
  for (const RouterSpec& router : {softmax_router(), grouped_router()}) {
    const Subject subject(router);
    for (const ValueWeights weights : {ValueWeights::none, ValueWeights::sensitivity, ValueWeights::boundary}) {
      for (const std::int64_t m : {0, 4}) {
        for (const bool centring : {true, false}) {
          TuneParameters p;
          p.value_weights = weights;
          p.loss_m = m;
          p.centring = centring;
          EXPECT_NEAR(subject.term(ObjectiveTerm::value, p), value_by_hand(subject, p, 0.4), 1e-6);
        }
      }
    }
  }
}

double phi(const TuneParameters& p, double x, double margin) {
  const double softness = 0.25 * margin;
  return p.phi == HingeShape::hinge ? std::max(x, 0.0) : softness * std::log1p(std::exp(x / softness));
}

TEST(Objectives, OrderAndBoundary) {
  for (const RouterSpec& router : {softmax_router(), grouped_router()}) {
    const Subject subject(router);
    for (const HingeShape shape : {HingeShape::hinge, HingeShape::softplus}) {
      TuneParameters p;
      p.phi = shape;
      p.gamma = 1.5;
      std::vector<double> order, boundary;
      for (std::int64_t t = 0; t < kTokens; ++t) {
        const auto ids = subject.ranks(t);
        const auto penalty = [&](std::int64_t i, std::int64_t j) {
          const double gap = subject.at(subject.s_free, t, ids[i]) - subject.at(subject.s_free, t, ids[j]);
          const double gap_hat = subject.at(subject.s_hat, t, ids[i]) - subject.at(subject.s_hat, t, ids[j]);
          return phi(p, std::min(p.gamma * 0.4, gap) - gap_hat, 0.4);
        };
        for (std::int64_t i = 0; i < kTopK; ++i) {
          for (std::int64_t j = i + 1; j < kTopK; ++j) order.push_back(penalty(i, j));
          for (std::int64_t j = kTopK; j < 2 * kTopK; ++j) {
            if (!std::isinf(subject.at(subject.s, t, ids[j]))) boundary.push_back(penalty(i, j));
          }
        }
      }
      EXPECT_GT(mean_of(order), 0);
      EXPECT_NEAR(subject.term(ObjectiveTerm::order, p), mean_of(order), 1e-6);
      EXPECT_NEAR(subject.term(ObjectiveTerm::boundary, p), mean_of(boundary), 1e-6);
    }
  }
}

TEST(Objectives, NothingMovedIsZero) {
  for (const RouterSpec& router : {softmax_router(), grouped_router()}) {
    const Subject subject(router);
    const RouterPair still{subject.spec, subject.original, subject.original, 0.4};
    for (const ObjectiveTerm term : {ObjectiveTerm::topk_mse, ObjectiveTerm::kl, ObjectiveTerm::kl_full,
                                     ObjectiveTerm::value, ObjectiveTerm::order, ObjectiveTerm::boundary}) {
      EXPECT_EQ(routing_term(term, still, {}).item<double>(), 0) << objective_term_name(term);
    }
  }
}

TEST(Objectives, OneExpertPerTokenHasNoOrderAndAllExpertsNoBoundary) {
  RouterSpec one = softmax_router(), all = softmax_router();
  one.num_experts_per_tok = 1;
  all.num_experts_per_tok = kExperts;
  const Subject single(one), every(all);
  EXPECT_FALSE(routing_term(ObjectiveTerm::order, single.pair(), {}).defined());
  EXPECT_TRUE(routing_term(ObjectiveTerm::boundary, single.pair(), {}).defined());
  EXPECT_FALSE(routing_term(ObjectiveTerm::boundary, every.pair(), {}).defined());
  EXPECT_FALSE(boundary_margins(all, every.original).defined());
}

TEST(Objectives, MarginsAreThoseOfTheBoundary) {
  const Subject subject(softmax_router());
  const at::Tensor margins = boundary_margins(subject.spec, subject.original);
  ASSERT_EQ(margins.numel(), kTokens);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const auto ids = subject.ranks(t);
    EXPECT_NEAR(margins[t].item<double>(),
                subject.at(subject.s, t, ids[kTopK - 1]) - subject.at(subject.s, t, ids[kTopK]), 1e-6);
  }
}

}  // namespace
}  // namespace kedge
