#include "claims/verdict.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kedge {
namespace {

Claim claim_of(Effect effect, ClaimTest test, Relation relation, double threshold, double refuted_at) {
  Claim claim;
  claim.name = "c", claim.metric = "m", claim.effect = effect, claim.test = test, claim.relation = relation;
  claim.threshold = threshold, claim.refuted_at = refuted_at;
  return claim;
}

std::vector<ClaimSample> pairs(const std::vector<std::pair<double, double>>& values) {
  std::vector<ClaimSample> out;
  for (const auto& [subject, baseline] : values) {
    const auto i = static_cast<std::int64_t>(out.size());
    out.push_back({std::to_string(i), i, {{"subject", subject}, {"baseline", baseline}}});
  }
  return out;
}

std::vector<ClaimSample> singles(const std::vector<double>& values) {
  std::vector<ClaimSample> out;
  for (const double value : values) {
    const auto i = static_cast<std::int64_t>(out.size());
    out.push_back({std::to_string(i), i, {{"value", value}}});
  }
  return out;
}

Verdict verdict_of(const Claim& claim, const std::vector<ClaimSample>& samples) {
  const Estimate e = estimate(claim, samples);
  const Estimate* estimates[] = {&e};
  return judge({&claim, 1}, estimates).front().verdict;
}

// The interval is scipy's (stats.t.interval(0.95, 4, mean, sem)) of the published five runs.
TEST(Estimate, StudentIntervalIsTheVerdict) {
  const auto samples = singles({61646457, 61084156, 59740083, 61680950, 61551653});
  Claim claim = claim_of(Effect::value, ClaimTest::student_t, Relation::at_most, 62157284, 70e6);
  const Estimate e = estimate(claim, samples);
  EXPECT_NEAR(e.low, 60124035.739, 0.01);
  EXPECT_NEAR(e.high, 62157283.861, 0.01);
  EXPECT_EQ(e.clusters, 5);
  // Upheld and refuted at the very ends of the interval, and undecided between.
  EXPECT_EQ(verdict_of(claim, samples), Verdict::upheld);
  claim.threshold = 62157283, claim.refuted_at = 62157283;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::inconclusive);
  claim.threshold = claim.refuted_at = 60124036;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::inconclusive);
  claim.threshold = claim.refuted_at = 60124035;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::refuted);
  // An effect between threshold and refuted_at decides nothing, however exact.
  claim.threshold = 50e6, claim.refuted_at = 62e6;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::inconclusive);
}

TEST(Estimate, RatiosAreOfLogarithms) {
  const Claim claim = claim_of(Effect::ratio, ClaimTest::student_t, Relation::at_least, 1.5, 1.2);
  const Estimate e = estimate(claim, pairs({{2, 1}, {8, 2}, {1, 1}, {4, 2}}));
  EXPECT_NEAR(e.effect, 2, 1e-12);  // geometric mean of 2, 4, 1, 2
  EXPECT_NEAR(e.low * e.high, 4, 1e-9);
  const Claim change = claim_of(Effect::relative_change, ClaimTest::student_t, Relation::at_least, 0.5, 0.2);
  const Estimate c = estimate(change, pairs({{2, 1}, {8, 2}, {1, 1}, {4, 2}}));
  EXPECT_NEAR(c.effect, 1, 1e-12);
  EXPECT_NEAR(c.low, e.low - 1, 1e-12);
  EXPECT_NEAR(c.p_upheld, e.p_upheld, 1e-12);
  EXPECT_TRUE(std::isnan(estimate(claim, pairs({{2, 1}, {0, 2}})).effect));
  EXPECT_EQ(estimate(claim, pairs({{2, 1}, {0, 2}})).p_upheld, 1);
}

// Pairs of one window are not independent: ten that agree within each of two windows are two, not twenty.
TEST(Estimate, WindowsAreTheUnits) {
  std::vector<ClaimSample> samples;
  for (int w = 0; w < 3; ++w) {
    for (int p = 0; p < 10; ++p) samples.push_back({std::to_string(w * 10 + p), w, {{"value", 1.0 + w}}});
  }
  const Claim claim = claim_of(Effect::value, ClaimTest::student_t, Relation::at_least, 1, 0.5);
  const Estimate e = estimate(claim, samples);
  EXPECT_EQ(e.n, 30);
  EXPECT_EQ(e.clusters, 3);
  EXPECT_NEAR(e.high - e.effect, 4.302653 / std::sqrt(3.0), 1e-5);
}

TEST(Estimate, EveryNeedsEach) {
  const Claim claim = claim_of(Effect::value, ClaimTest::every, Relation::at_most, 1, 2);
  EXPECT_EQ(verdict_of(claim, singles({0.5, 1})), Verdict::upheld);
  EXPECT_EQ(verdict_of(claim, singles({0.5, 1.5})), Verdict::inconclusive);
  EXPECT_EQ(verdict_of(claim, singles({0.5, 2.5})), Verdict::refuted);
  EXPECT_EQ(estimate(claim, singles({0.5, 2.5})).effect, 2.5);
}

TEST(Estimate, BootstrapOfConfidences) {
  Claim claim = claim_of(Effect::value, ClaimTest::bootstrap, Relation::at_least, 0.6, 0.6);
  claim.metric = "auroc";
  std::vector<ClaimSample> samples;
  for (int i = 0; i < 200; ++i) {
    // The surer half is right three times in four, the other one time in four.
    const bool sure = i % 2 == 0;
    const int right = (i / 2) % 4 == 0 ? (sure ? 0 : 1) : (sure ? 1 : 0);
    samples.push_back({std::to_string(i), i, {{"confidence", sure ? 0.9 : 0.4}, {"correct", double(right)}}});
  }
  const Estimate e = estimate(claim, samples);
  EXPECT_NEAR(e.effect, 0.75, 1e-12);
  EXPECT_LT(e.low, 0.75);
  EXPECT_GT(e.low, 0.65);
  EXPECT_EQ(verdict_of(claim, samples), Verdict::upheld);
  claim.threshold = claim.refuted_at = 0.75;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::inconclusive);
  claim.threshold = claim.refuted_at = 0.9;
  EXPECT_EQ(verdict_of(claim, samples), Verdict::refuted);
}

TEST(Estimate, OneClusterDecidesNothing) {
  for (const ClaimTest test : {ClaimTest::student_t, ClaimTest::bootstrap}) {
    const Claim claim = claim_of(Effect::value, test, Relation::at_least, 1, 1);
    EXPECT_EQ(verdict_of(claim, singles({5})), Verdict::inconclusive);
    EXPECT_EQ(estimate(claim, singles({5})).effect, 5);
    EXPECT_EQ(verdict_of(claim, {}), Verdict::inconclusive);
  }
  Claim claim = claim_of(Effect::value, ClaimTest::every, Relation::at_least, 1, 1);
  EXPECT_EQ(verdict_of(claim, {}), Verdict::inconclusive);
  EXPECT_EQ(verdict_of(claim, {{"a", 0, {{"other", 3}}}}), Verdict::inconclusive);
}

TEST(Judge, FamiliesShareTheirErrorRate) {
  // p about 0.02 alone: upheld; as one of three, the other two of which did not run: not.
  const auto samples = singles({1, 2, 3, 4, 5});
  std::vector<Claim> claims(3, claim_of(Effect::value, ClaimTest::student_t, Relation::at_least, 0.95, 0.5));
  const Estimate e = estimate(claims[0], samples);
  ASSERT_GT(e.p_upheld, 0.025 / 3);
  ASSERT_LT(e.p_upheld, 0.025);
  const Estimate* estimates[] = {&e, nullptr, nullptr};
  EXPECT_EQ(judge(claims, estimates)[0].verdict, Verdict::upheld);
  EXPECT_EQ(judge(claims, estimates)[1].verdict, Verdict::not_run);
  for (Claim& claim : claims) claim.family = "f";
  const std::vector<Judgement> judged = judge(claims, estimates);
  EXPECT_EQ(judged[0].verdict, Verdict::inconclusive);
  EXPECT_NEAR(judged[0].p_upheld, 3 * e.p_upheld, 1e-12);
}

}  // namespace
}  // namespace kedge
