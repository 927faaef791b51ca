#include "stats/mutual_information.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace kedge {
namespace {

TEST(MutualInformation, KnownTables) {
  EXPECT_NEAR(mutual_information(std::vector<std::int64_t>{5, 0, 0, 5}, 2), std::log(2.0), 1e-12);
  EXPECT_NEAR(mutual_information(std::vector<std::int64_t>{2, 4, 3, 6}, 2), 0.0, 1e-12);
  // numpy: (p * log(p / (p.sum(1, keepdims=True) * p.sum(0)))).sum()
  EXPECT_NEAR(mutual_information(std::vector<std::int64_t>{10, 3, 1, 2, 8, 6}, 3), 0.2001557247886987, 1e-12);
  EXPECT_TRUE(std::isnan(mutual_information(std::vector<std::int64_t>{0, 0}, 2)));
}

TEST(MutualInformation, PermutationsFindTheNull) {
  Rng rng(1);
  std::vector<int> a, same, other;
  for (int i = 0; i < 1000; ++i) {
    a.push_back(static_cast<int>(rng.below(4)));
    same.push_back(a.back());
    other.push_back(static_cast<int>(rng.below(10)));
  }
  const PermutationTest dependent = mutual_information_test(a, same, 199, 1);
  EXPECT_NEAR(dependent.value, std::log(4.0), 0.01);
  EXPECT_DOUBLE_EQ(dependent.p, 1.0 / 200);
  const PermutationTest independent = mutual_information_test(a, other, 199, 1);
  // (rows - 1)(columns - 1) / 2n, the mean of a chi-squared over 2n.
  EXPECT_NEAR(independent.null_mean, 27.0 / 2000, 0.002);
  EXPECT_GT(independent.p, 0.01);
  EXPECT_GT(independent.null_high, independent.null_mean);
  EXPECT_EQ(mutual_information_test(a, other, 199, 1).p, independent.p);
}

}  // namespace
}  // namespace kedge
