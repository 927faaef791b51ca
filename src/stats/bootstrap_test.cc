#include "stats/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stats/intervals.h"

namespace kedge {
namespace {

// Nanoseconds per operation, five runs; the moments are those that were published with them, the interval and the tails
// are scipy 1.17's (stats.t.interval, stats.t.sf).
const std::vector<double> kRuns{61646457, 61084156, 59740083, 61680950, 61551653};

double mean_of(std::span<const std::size_t> drawn) {
  double sum = 0;
  for (const std::size_t i : drawn) sum += kRuns[i];
  return sum / static_cast<double>(drawn.size());
}

TEST(CheckVector, FiveRuns) {
  const Interval i = mean_interval(kRuns);
  EXPECT_DOUBLE_EQ(i.mean, 61140659.8);
  EXPECT_NEAR(i.standard_error * std::sqrt(5.0), 818759.39, 0.005);
  EXPECT_NEAR(1.96 * i.standard_error, 717674.25, 0.005);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.776, 0.0005);
  EXPECT_NEAR(i.low, 60124035.739316925, 1e-2);
  EXPECT_NEAR(i.high, 62157283.86068307, 1e-2);
}

TEST(StudentT, UpperTailAsScipy) {
  const struct {
    double t, df, p;
  } rows[] = {{0, 3, 0.5},
              {1, 4, 0.18695048315002943},
              {2.776, 4, 0.02501138915998821},
              {-1.5, 9, 0.9160746719714625},
              {5, 2, 0.018874775675311862},
              {12.7, 1, 0.025012163844672083},
              {3.5, 29, 0.0007622231573273012}};
  for (const auto& row : rows) EXPECT_NEAR(student_t_upper_tail(row.t, row.df), row.p, 1e-13) << row.t;
}

// scipy.stats.bootstrap of the mean, percentile method, 100,000 resamples: [60397071.0, 61641293.4].
TEST(Bootstrap, IntervalAsScipy) {
  const std::vector<double> replicates = bootstrap_replicates(5, mean_of, {.resamples = 50000, .seed = 3});
  ASSERT_EQ(replicates.size(), 50000u);
  EXPECT_NEAR(quantile(replicates, 0.025), 60397071.0, 15000);
  EXPECT_NEAR(quantile(replicates, 0.975), 61641293.4, 5000);
}

TEST(Bootstrap, SeedDecides) {
  const BootstrapOptions one{.resamples = 50, .seed = 1}, two{.resamples = 50, .seed = 2};
  EXPECT_EQ(bootstrap_replicates(5, mean_of, one), bootstrap_replicates(5, mean_of, one));
  EXPECT_NE(bootstrap_replicates(5, mean_of, one), bootstrap_replicates(5, mean_of, two));
  EXPECT_TRUE(bootstrap_replicates(0, mean_of, one).empty());
}

// statsmodels 0.14, multipletests(method="holm").
TEST(Holm, AsStatsmodels) {
  const std::vector<double> adjusted = holm_adjusted(std::vector<double>{0.01, 0.04, 0.03, 0.005, 0.8, 0.02});
  const std::vector<double> expected{0.05, 0.09, 0.09, 0.03, 0.8, 0.08};
  ASSERT_EQ(adjusted.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-15) << i;
  EXPECT_EQ(holm_adjusted(std::vector<double>{0.9, 0.7}), (std::vector<double>{1, 1}));
}

}  // namespace
}  // namespace kedge
