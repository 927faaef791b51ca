#include "stats/mutual_information.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/rng.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

std::vector<std::int64_t> count_pairs(std::span<const int> a, std::span<const int> b, std::int64_t rows,
                                      std::int64_t columns) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(rows * columns), 0);
  for (std::size_t i = 0; i < a.size(); ++i) ++counts[static_cast<std::size_t>(a[i] * columns + b[i])];
  return counts;
}

}  // namespace

double mutual_information(std::span<const std::int64_t> counts, std::int64_t columns) {
  KEDGE_CHECK(columns > 0 && counts.size() % static_cast<std::size_t>(columns) == 0);
  const auto width = static_cast<std::size_t>(columns), rows = counts.size() / width;
  std::vector<double> row_sums(rows, 0.0), column_sums(width, 0.0);
  double total = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto n = static_cast<double>(counts[i]);
    row_sums[i / width] += n;
    column_sums[i % width] += n;
    total += n;
  }
  if (total == 0) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto n = static_cast<double>(counts[i]);
    if (n > 0) sum += n / total * std::log(n * total / (row_sums[i / width] * column_sums[i % width]));
  }
  return std::max(0.0, sum);
}

PermutationTest mutual_information_test(std::span<const int> a, std::span<const int> b, int permutations,
                                        std::uint64_t seed) {
  KEDGE_CHECK(a.size() == b.size() && !a.empty() && permutations > 0);
  const std::int64_t rows = *std::max_element(a.begin(), a.end()) + 1,
                     columns = *std::max_element(b.begin(), b.end()) + 1;
  PermutationTest test;
  test.permutations = permutations;
  test.value = mutual_information(count_pairs(a, b, rows, columns), columns);
  std::vector<int> shuffled(b.begin(), b.end());
  std::vector<double> null;
  Rng rng(seed);
  int as_much = 0;
  for (int p = 0; p < permutations; ++p) {
    for (std::size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[rng.below(i)]);
    null.push_back(mutual_information(count_pairs(a, shuffled, rows, columns), columns));
    test.null_mean += null.back() / permutations;
    as_much += null.back() >= test.value ? 1 : 0;
  }
  test.null_high = quantile(std::move(null), 0.95);
  test.p = static_cast<double>(1 + as_much) / static_cast<double>(1 + permutations);
  return test;
}

}  // namespace kedge
