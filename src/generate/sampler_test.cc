#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "generate/score.h"
#include "kedge/error.h"

namespace kedge {
namespace {

const float minus_infinity = -std::numeric_limits<float>::infinity();
const float nan_value = std::numeric_limits<float>::quiet_NaN();

std::map<std::int32_t, double> shares(const SamplingParams& params, const std::vector<float>& logits,
                                      int draws = 20000) {
  Sampler sampler(params, static_cast<std::int64_t>(logits.size()));
  std::map<std::int32_t, double> result;
  for (int i = 0; i < draws; ++i) result[sampler.sample(logits)] += 1.0 / draws;
  return result;
}

std::set<std::int32_t> support(const SamplingParams& params, const std::vector<float>& logits) {
  std::set<std::int32_t> ids;
  for (const auto& [id, share] : shares(params, logits)) ids.insert(id);
  return ids;
}

// log of 0.4, 0.3, 0.2, 0.1 in another order.
const std::vector<float> logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};
using Ids = std::set<std::int32_t>;

TEST(Sampler, GreedyTakesTheLowestOfEqualIds) {
  Sampler sampler({}, 5);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2, 3, 0}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{nan_value, -5, nan_value, -5, -6}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>(5, minus_infinity)), 0);
}

TEST(Sampler, DrawsInProportion) {
  for (const auto& [id, share] : shares({.temperature = 1}, logits)) {
    EXPECT_NEAR(share, std::exp(logits[static_cast<std::size_t>(id)]), 0.015);
  }
  // Temperature 0.5 squares the probabilities: 16 : 9 : 4 : 1.
  EXPECT_NEAR(shares({.temperature = 0.5}, logits).at(1), 16.0 / 30.0, 0.015);
}

TEST(Sampler, FiltersKeepWhatTransformersKeeps) {
  EXPECT_EQ(support({.temperature = 1, .top_k = 2}, logits), (Ids{1, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 1}, logits), (Ids{1}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 9}, logits), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 1}, {1, 2, 2, 0}), (Ids{1, 2}));  // ties with the k-th stay
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.35f}, logits), (Ids{1}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.65f}, logits), (Ids{1, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.75f}, logits), (Ids{0, 1, 3}));
  EXPECT_EQ(support({.temperature = 1, .min_p = 0.45f}, logits), (Ids{0, 1, 3}));
  EXPECT_EQ(support({.temperature = 1, .min_p = 1.0f}, logits), (Ids{1}));
  // top-p sees the probabilities that top-k left: 4/7 and 3/7.
  EXPECT_EQ(support({.temperature = 1, .top_k = 2, .top_p = 0.5f}, logits), (Ids{1}));
  // and the temperature comes before all: at 0.5 the highest has 16/30.
  EXPECT_EQ(support({.temperature = 0.5, .top_p = 0.5f}, logits), (Ids{1}));
}

TEST(Sampler, SeedsRepeat) {
  const auto draw = [](std::uint64_t seed) {
    Sampler sampler({.temperature = 1, .top_p = 0.95f, .seed = seed}, 4);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 64; ++i) ids.push_back(sampler.sample(logits));
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, SameTokensOnAnyIsa) {
  std::vector<float> wide(1000);
  Rng rng(3);
  for (float& x : wide) x = static_cast<float>(rng.normal() * 3);
  std::vector<std::vector<std::int32_t>> all;
  for (const Isa isa : available_isas()) {
    Sampler sampler({.temperature = 0.8f, .top_k = 200, .top_p = 0.9f, .min_p = 0.01f, .seed = 5}, 1000, isa);
    all.emplace_back();
    for (int i = 0; i < 200; ++i) all.back().push_back(sampler.sample(wide));
  }
  for (const auto& ids : all) EXPECT_EQ(ids, all[0]);
}

TEST(Sampler, SurvivesAwkwardLogits) {
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 1},
        SamplingParams{.temperature = 1e-30f, .top_k = 3, .top_p = 0.5f, .min_p = 0.5f}}) {
    Sampler sampler(params, 4);
    for (const std::vector<float>& row : {std::vector<float>(4, minus_infinity), std::vector<float>(4, nan_value),
                                          std::vector<float>{minus_infinity, 3e38f, -3e38f, nan_value}}) {
      const std::int32_t id = sampler.sample(row);
      EXPECT_GE(id, 0);
      EXPECT_LT(id, 4);
    }
    EXPECT_EQ(sampler.sample(std::vector<float>{minus_infinity, 1, nan_value, minus_infinity}), 1);
  }
}

TEST(Sampler, RefusesValuesOutOfRange) {
  for (const SamplingParams& bad :
       {SamplingParams{.temperature = -1}, SamplingParams{.temperature = nan_value}, SamplingParams{.top_k = -1},
        SamplingParams{.top_p = 0}, SamplingParams{.top_p = 1.5f}, SamplingParams{.min_p = -0.1f},
        SamplingParams{.min_p = 1.1f}}) {
    try {
      Sampler sampler(bad, 4);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
    }
  }
}

TEST(Score, NegativeLogLikelihood) {
  for (std::int32_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(negative_log_likelihood(logits, i, Isa::scalar), -logits[static_cast<std::size_t>(i)], 1e-6);
  }
}

TEST(Score, ComparesDistributions) {
  const std::vector<float> p = logits;
  const std::vector<float> q = {std::log(0.25f), std::log(0.25f), std::log(0.4f), std::log(0.1f)};
  const DistributionDiff diff = compare_distributions(p, q, 3, Isa::scalar);
  double kld = 0;
  for (std::size_t i = 0; i < 4; ++i) kld += std::exp(p[i]) * (p[i] - q[i]);
  EXPECT_NEAR(diff.kld, kld, 1e-6);
  EXPECT_FALSE(diff.same_top);
  EXPECT_NEAR(diff.p_target, 0.3, 1e-6);
  EXPECT_NEAR(diff.q_target, 0.1, 1e-6);
  EXPECT_NEAR(diff.nll_q, -std::log(0.1), 1e-6);
}

TEST(Score, EqualLogitsDifferByExactlyNothing) {
  Rng rng(1);
  std::vector<float> row(4099);  // more than one buffer, ragged
  std::vector<float> other(row.size());
  double reference = 0, sum_p = 0, sum_q = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>(rng.normal() * 4);
    other[i] = row[i] + static_cast<float>(rng.normal() * 0.1);
    sum_p += std::exp(double{row[i]});
    sum_q += std::exp(double{other[i]});
  }
  for (std::size_t i = 0; i < row.size(); ++i) {
    reference += std::exp(double{row[i]}) / sum_p * ((row[i] - std::log(sum_p)) - (other[i] - std::log(sum_q)));
  }
  for (const Isa isa : available_isas()) {
    const DistributionDiff same = compare_distributions(row, row, 7, isa);
    EXPECT_EQ(same.kld, 0.0);
    EXPECT_TRUE(same.same_top);
    EXPECT_EQ(same.nll_p, same.nll_q);
    EXPECT_NEAR(compare_distributions(row, other, 7, isa).kld, reference, 1e-6);
  }
}

TEST(Score, ImpossibleTokensCountAsNothing) {
  const std::vector<float> p = {0, minus_infinity, 0}, q = {0, minus_infinity, 0};
  EXPECT_EQ(compare_distributions(p, q, 0, Isa::scalar).kld, 0.0);
  EXPECT_TRUE(std::isinf(compare_distributions(std::vector<float>{0, 0, 0}, q, 0, Isa::scalar).kld));
}

}  // namespace
}  // namespace kedge
