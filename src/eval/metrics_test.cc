#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kedge {
namespace {

TEST(EvalMetrics, MultipleChoice) {
  const std::vector<double> lls = {-4, -5, -4};
  const std::vector<std::string> choices = {"ab", "abcde", "\xC3\xA4\xC3\xA4"};
  EXPECT_EQ(multiple_choice_metric("acc", lls, choices, 0), 1);  // the first of equal ones
  EXPECT_EQ(multiple_choice_metric("acc", lls, choices, 2), 0);
  EXPECT_EQ(multiple_choice_metric("acc_norm", lls, choices, 1), 1);                               // -2, -1, -2
  EXPECT_EQ(multiple_choice_metric("acc_bytes", std::vector<double>{-4, -9, -4}, choices, 2), 1);  // -2, -1.8, -1
}

TEST(EvalMetrics, ProbabilityMassOfLongAnswers) {
  EXPECT_NEAR(
      probability_mass(std::vector<double>{std::log(.2), std::log(.1), std::log(.1)}, std::vector<int>{1, 0, 1}), 0.75,
      1e-12);
  EXPECT_NEAR(probability_mass(std::vector<double>{-2000, -2000}, std::vector<int>{0, 1}), 0.5, 1e-12);
}

TEST(EvalMetrics, AggregatesWithErrors) {
  const std::vector<MetricSample> hits = {{1, 1}, {0, 1}, {1, 1}, {1, 1}};
  const MetricValue acc = aggregate("acc", hits);
  EXPECT_EQ(acc.value, 0.75);
  EXPECT_NEAR(acc.standard_error, std::sqrt((3 * 0.0625 + 0.5625) / 3 / 4), 1e-12);
  const std::vector<MetricSample> lls = {{-2, 1}, {-4, 1}};
  EXPECT_NEAR(aggregate("perplexity", lls).value, std::exp(3), 1e-9);
  EXPECT_NEAR(aggregate("perplexity", lls).standard_error, std::exp(3) * 1, 1e-9);
  const std::vector<MetricSample> texts = {{-20, 10}, {-10, 5}};
  EXPECT_NEAR(aggregate("byte_perplexity", texts).value, std::exp(2), 1e-9);
  EXPECT_NEAR(aggregate("bits_per_byte", texts).value, 2 / std::log(2), 1e-9);
  EXPECT_TRUE(std::isnan(aggregate("acc", std::vector<MetricSample>{{1, 1}}).standard_error));
}

TEST(EvalMetrics, Groups) {
  const std::vector<MetricValue> tasks = {{0.5, 0.1, 10}, {0.8, 0.2, 30}};
  const MetricValue weighted = aggregate_group(tasks, true), plain = aggregate_group(tasks, false);
  EXPECT_NEAR(weighted.value, (5 + 24) / 40.0, 1e-12);
  EXPECT_NEAR(weighted.standard_error, std::sqrt((9 * 10 * 0.01 + 29 * 30 * 0.04) / 38 / 40), 1e-12);
  EXPECT_NEAR(plain.value, 0.65, 1e-12);
  EXPECT_NEAR(plain.standard_error, std::sqrt(0.01 + 0.04) / 2, 1e-12);
  EXPECT_EQ(weighted.samples, 40);
}

}  // namespace
}  // namespace kedge
