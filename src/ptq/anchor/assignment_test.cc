#include "ptq/anchor/assignment.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<float> random_gain(std::int64_t n, std::uint64_t seed, int values) {
  Rng rng(seed);
  std::vector<float> gain(static_cast<std::size_t>(n * n));
  for (float& g : gain) {
    g = values > 0 ? static_cast<float>(rng.below(static_cast<std::uint64_t>(values)))
                   : static_cast<float>(rng.normal());
  }
  return gain;
}

double total(const std::vector<float>& gain, const std::vector<std::int32_t>& columns) {
  double sum = 0;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    sum += gain[i * columns.size() + static_cast<std::size_t>(columns[i])];
  }
  return sum;
}

TEST(Assignment, EqualsTryingAllPermutations) {
  for (std::int64_t n = 1; n <= 7; ++n) {
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      const std::vector<float> gain = random_gain(n, seed, seed % 3 == 0 ? 4 : 0);  // with and without ties
      std::vector<std::int32_t> p(static_cast<std::size_t>(n));
      std::iota(p.begin(), p.end(), 0);
      double best = total(gain, p);
      while (std::next_permutation(p.begin(), p.end())) best = std::max(best, total(gain, p));
      EXPECT_NEAR(total(gain, solve_assignment(gain, n).column_of), best, 1e-9) << n << ", seed " << seed;
    }
  }
}

// Prices that no pair beats and that the chosen pairs reach bound every permutation's sum: no solver is needed to see
// it.
TEST(Assignment, ThePricesProveThatNothingIsBetter) {
  for (const std::int64_t n : {40, 150}) {
    for (const int values : {0, 3}) {
      const std::vector<float> gain = random_gain(n, 5, values);
      const Assignment a = solve_assignment(gain, n);
      std::vector<bool> taken(static_cast<std::size_t>(n), false);
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        const auto j = static_cast<std::size_t>(a.column_of[i]);
        EXPECT_FALSE(taken[j]);
        taken[j] = true;
        EXPECT_NEAR(a.row_price[i] + a.column_price[j], gain[i * static_cast<std::size_t>(n) + j], 1e-9);
        for (std::size_t c = 0; c < static_cast<std::size_t>(n); ++c) {
          ASSERT_GE(a.row_price[i] + a.column_price[c], gain[i * static_cast<std::size_t>(n) + c] - 1e-9);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kedge
