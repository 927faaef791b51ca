#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

TEST(StudentT, PublishedTable) {
  // Two-sided 95 %, 99 % and others, as printed in textbooks (three decimals).
  const struct {
    double p, df, t;
  } rows[] = {{.975, 1, 12.706}, {.975, 2, 4.303},   {.975, 3, 3.182},  {.975, 4, 2.776},
              {.975, 5, 2.571},  {.975, 10, 2.228},  {.975, 20, 2.086}, {.975, 30, 2.042},
              {.975, 60, 2.000}, {.975, 120, 1.980}, {.995, 1, 63.657}, {.995, 10, 3.169},
              {.995, 30, 2.750}, {.9, 3, 1.638},     {.95, 7, 1.895},   {.9995, 10, 4.587}};
  for (const auto& row : rows) {
    EXPECT_NEAR(student_t_quantile(row.p, row.df), row.t, 0.0005001) << row.p << " " << row.df;
    EXPECT_NEAR(student_t_quantile(1 - row.p, row.df), -row.t, 0.0005001);
  }
  EXPECT_NEAR(student_t_quantile(.975, 1e7), 1.959964, 1e-5);
  EXPECT_EQ(student_t_quantile(.5, 3), 0);
}

TEST(StudentT, ClosedForms) {
  for (double p : {0.51, 0.6, 0.75, 0.9, 0.99, 0.999, 0.99999}) {
    const double one = std::tan(M_PI * (p - 0.5)), two = (2 * p - 1) * std::sqrt(2 / (4 * p * (1 - p)));
    EXPECT_NEAR(student_t_quantile(p, 1) / one, 1, 1e-9);
    EXPECT_NEAR(student_t_quantile(p, 2) / two, 1, 1e-9);
  }
}

TEST(Intervals, Mean) {
  const Interval i = mean_interval(std::vector<double>{1, 2, 3, 4, 5});
  EXPECT_EQ(i.n, 5);
  EXPECT_DOUBLE_EQ(i.mean, 3);
  EXPECT_NEAR(i.standard_error, std::sqrt(2.5 / 5), 1e-12);
  EXPECT_NEAR(i.high - 3, 2.776445 * std::sqrt(0.5), 1e-5);
  EXPECT_NEAR(i.low + i.high, 6, 1e-12);
  const Interval one = mean_interval(std::vector<double>{7});
  EXPECT_EQ(one.low, 7);
  EXPECT_EQ(one.high, 7);
  EXPECT_TRUE(std::isnan(one.standard_error));
  EXPECT_TRUE(std::isnan(mean_interval({}).mean));
}

TEST(Intervals, RatioOfEqualClustersIsTheMean) {
  const std::vector<double> a{1, 4, 2, 8}, b{2, 2, 2, 2};
  const Interval ratio = ratio_interval(a, b), mean = mean_interval(std::vector<double>{.5, 2, 1, 4});
  EXPECT_NEAR(ratio.mean, mean.mean, 1e-12);
  EXPECT_NEAR(ratio.low, mean.low, 1e-12);
  EXPECT_NEAR(ratio.high, mean.high, 1e-12);
  EXPECT_EQ(ratio.n, 4);
  // A constant ratio has no error, whatever the lengths.
  const Interval constant = ratio_interval(std::vector<double>{1, 2, 3}, std::vector<double>{4, 8, 12});
  EXPECT_DOUBLE_EQ(constant.mean, 0.25);
  EXPECT_NEAR(constant.standard_error, 0, 1e-15);
  EXPECT_TRUE(std::isnan(ratio_interval(std::vector<double>{0, 0}, std::vector<double>{0, 0}).mean));
  // Clusters without weight say nothing: not that there is no error, nor that there are more of them.
  const Interval alone = ratio_interval(std::vector<double>{0, 3, 0}, std::vector<double>{0, 4, 0});
  EXPECT_DOUBLE_EQ(alone.mean, 0.75);
  EXPECT_EQ(alone.n, 1);
  EXPECT_TRUE(std::isnan(alone.standard_error));
  const Interval padded = ratio_interval(std::vector<double>{1, 0, 4, 2, 0, 8}, std::vector<double>{2, 0, 2, 2, 0, 2});
  EXPECT_DOUBLE_EQ(padded.high, ratio.high);
}

// 95 % intervals hold the true value about 95 times in 100, also with unequal clusters whose tokens are correlated.
TEST(Intervals, RatioCoverage) {
  Rng rng(11);
  int covered = 0;
  constexpr int kTrials = 2000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> a, b;
    for (int cluster = 0; cluster < 30; ++cluster) {
      const double length = 50 + static_cast<double>(rng.below(200));
      const double rate = 0.3 + 0.1 * rng.normal();
      a.push_back(length * rate);
      b.push_back(length);
    }
    const Interval i = ratio_interval(a, b);
    covered += i.low <= 0.3 && 0.3 <= i.high;
  }
  EXPECT_GT(covered, 0.92 * kTrials);
  EXPECT_LT(covered, 0.97 * kTrials);
}

TEST(Stats, QuantileAsNumpy) {
  const std::vector<double> values{3, 1, 4, 1, 5, 9, 2, 6};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 6.9);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 9);
  EXPECT_DOUBLE_EQ(quantile({2}, 0.3), 2);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

TEST(Stats, Gini) {
  EXPECT_DOUBLE_EQ(gini(std::vector<double>{5, 5, 5}), 0);
  EXPECT_DOUBLE_EQ(gini(std::vector<double>{0, 0, 0, 8}), 0.75);
  EXPECT_DOUBLE_EQ(gini(std::vector<double>{3, 1}), 0.25);
  EXPECT_DOUBLE_EQ(gini(std::vector<double>{0, 0}), 0);
}

TEST(Stats, JensenShannon) {
  const std::vector<double> a{1, 2, 3}, b{2, 4, 6}, c{0, 0, 1}, d{5, 0, 0};
  EXPECT_NEAR(js_divergence(a, b), 0, 1e-15);
  EXPECT_NEAR(js_divergence(c, d), std::log(2.0), 1e-15);
  EXPECT_DOUBLE_EQ(js_divergence(a, c), js_divergence(c, a));
  // p = (1/2, 1/2), q = (1, 0), by hand: 1/2 [1/2 ln(2/3) + 1/2 ln 2 + ln(4/3)].
  EXPECT_NEAR(js_divergence(std::vector<double>{1, 1}, std::vector<double>{1, 0}),
              0.5 * (0.5 * std::log(2.0 / 3) + 0.5 * std::log(2.0) + std::log(4.0 / 3)), 1e-12);
  EXPECT_TRUE(std::isnan(js_divergence(std::vector<double>{0, 0}, std::vector<double>{1, 0})));
}

}  // namespace
}  // namespace kedge
