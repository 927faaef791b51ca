// Multiple-choice knapsack: one choice per item, least total loss within a budget.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

struct KnapsackItem {
  std::vector<std::int64_t> costs;  ///< ascending, none negative
  std::vector<double> losses;       ///< [choices], finite
};

struct KnapsackChoice {
  std::vector<std::size_t> choices;  ///< [items]
  bool exact = false;
};

/// Dynamic programming over the budget, in units of the costs' greatest common divisor: exact where items times units
/// stay below 2^26. Else greedy along each item's lower convex hull, largest loss saved per cost first (Sinha and
/// Zoltners 1979), at most one item's step from the optimum. Of equal results the cheaper choice. CHECKs that the
/// cheapest choices fit.
KnapsackChoice solve_knapsack(std::span<const KnapsackItem> items, std::int64_t budget);

}  // namespace kedge
