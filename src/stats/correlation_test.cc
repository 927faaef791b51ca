#include "stats/correlation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace kedge {
namespace {

// Anscombe's first and fourth sets (The American Statistician 27, 1973): r = 0.816 in both, to three decimals.
TEST(Correlation, PearsonOfAnscombe) {
  const std::vector<double> x{10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5};
  const std::vector<double> y{8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68};
  EXPECT_NEAR(pearson(x, y), 0.81642, 5e-6);
  const std::vector<double> x4{8, 8, 8, 8, 8, 8, 8, 19, 8, 8, 8};
  const std::vector<double> y4{6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89};
  EXPECT_NEAR(pearson(x4, y4), 0.81652, 5e-6);
}

TEST(Correlation, Ranks) {
  EXPECT_EQ(average_ranks(std::vector<double>{3, 1, 3, 2}), (std::vector<double>{3.5, 1, 3.5, 2}));
  EXPECT_EQ(average_ranks(std::vector<double>{5, 5, 5}), (std::vector<double>{2, 2, 2}));
  EXPECT_TRUE(average_ranks({}).empty());
}

TEST(Correlation, Spearman) {
  // Ten pairs, sum of squared rank differences 194: 1 - 6 * 194 / 990 = -29/165.
  const std::vector<double> iq{106, 100, 86, 101, 99, 103, 97, 113, 112, 110};
  const std::vector<double> hours{7, 27, 2, 50, 28, 29, 20, 12, 6, 17};
  EXPECT_NEAR(spearman(iq, hours), -29.0 / 165, 1e-12);
  // Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / sqrt(4.5 * 5).
  EXPECT_NEAR(spearman(std::vector<double>{1, 2, 2, 9}, std::vector<double>{1, 5, 6, 7}), 4.5 / std::sqrt(22.5), 1e-12);
  const std::vector<double> x{1, 2, 3, 4, 5}, cubes{1, 8, 27, 64, 125}, falling{5, 4, 3, 2, 1};
  EXPECT_DOUBLE_EQ(spearman(x, cubes), 1);
  EXPECT_DOUBLE_EQ(spearman(x, falling), -1);
}

TEST(Correlation, NothingToCorrelate) {
  EXPECT_TRUE(std::isnan(pearson(std::vector<double>{1}, std::vector<double>{2})));
  EXPECT_TRUE(std::isnan(pearson(std::vector<double>{1, 1, 1}, std::vector<double>{1, 2, 3})));
  const std::vector<double> x{1, 2, 3}, y{1, 2, 4};
  const Correlation two = bootstrap_correlation(pearson, x, y, std::vector<int>{0, 1, 1});
  EXPECT_EQ(two.clusters, 2);
  EXPECT_TRUE(std::isnan(two.low));
}

// Bivariate normal points with correlation 0.6: the interval must hold it in about 95 of 100 experiments.
TEST(Correlation, BootstrapCoverage) {
  Rng rng(5);
  int covered = 0;
  constexpr int kTrials = 400, kPoints = 60;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> x, y;
    std::vector<int> clusters;
    for (int i = 0; i < kPoints; ++i) {
      const double a = rng.normal(), b = rng.normal();
      x.push_back(a), y.push_back(0.6 * a + 0.8 * b), clusters.push_back(i);
    }
    const Correlation c = bootstrap_correlation(pearson, x, y, clusters, {.resamples = 400, .seed = 9});
    covered += c.low <= 0.6 && 0.6 <= c.high;
  }
  EXPECT_GT(covered, 0.89 * kTrials);
  EXPECT_LT(covered, 0.99 * kTrials);
}

// Copies of the same points add no evidence.
TEST(Correlation, CopiesInAClusterDoNotNarrowTheInterval) {
  Rng rng(3);
  std::vector<double> x, y, x3, y3;
  std::vector<int> once, thrice;
  for (int i = 0; i < 20; ++i) {
    const double a = rng.normal(), b = a + rng.normal();
    x.push_back(a), y.push_back(b), once.push_back(i);
    for (int copy = 0; copy < 3; ++copy) x3.push_back(a), y3.push_back(b), thrice.push_back(i);
  }
  const Correlation single = bootstrap_correlation(spearman, x, y, once);
  const Correlation copied = bootstrap_correlation(spearman, x3, y3, thrice);
  EXPECT_NEAR(single.low, copied.low, 1e-12);
  EXPECT_NEAR(single.high, copied.high, 1e-12);
  EXPECT_EQ(copied.points, 60);
  EXPECT_EQ(copied.clusters, 20);
  EXPECT_EQ(bootstrap_correlation(spearman, x, y, once).low, single.low);
}

}  // namespace
}  // namespace kedge
