#include "ptq/knapsack.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace kedge {
namespace {

struct Total {
  std::int64_t cost = 0;
  double loss = 0;
};

Total total_of(const std::vector<KnapsackItem>& items, const std::vector<std::size_t>& choices) {
  Total total;
  for (std::size_t i = 0; i < items.size(); ++i) {
    total.cost += items[i].costs[choices[i]];
    total.loss += items[i].losses[choices[i]];
  }
  return total;
}

double least_by_trying_all(const std::vector<KnapsackItem>& items, std::int64_t budget) {
  double least = INFINITY;
  std::vector<std::size_t> choices(items.size(), 0);
  for (;;) {
    const Total total = total_of(items, choices);
    if (total.cost <= budget) least = std::min(least, total.loss);
    std::size_t i = 0;
    while (i < items.size() && ++choices[i] == items[i].costs.size()) choices[i++] = 0;
    if (i == items.size()) return least;
  }
}

std::vector<KnapsackItem> random_items(Rng& rng, std::size_t count, std::int64_t unit) {
  std::vector<KnapsackItem> items;
  for (std::size_t i = 0; i < count; ++i) {
    KnapsackItem item;
    const std::int64_t weights = unit * static_cast<std::int64_t>(1 + rng.below(4));
    for (const std::int64_t bits : {2, 3, 4, 8}) {
      item.costs.push_back(weights * bits);
      item.losses.push_back(rng.uniform() * std::exp2(-2 * double(bits)));
    }
    items.push_back(std::move(item));
  }
  return items;
}

TEST(Knapsack, FindsWhatTryingAllFinds) {
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    const std::vector<KnapsackItem> items = random_items(rng, 1 + rng.below(6), 1000);
    std::int64_t cheapest = 0;
    for (const KnapsackItem& item : items) cheapest += item.costs.front();
    const std::int64_t budget =
        cheapest + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(3 * cheapest)));
    const KnapsackChoice found = solve_knapsack(items, budget);
    EXPECT_TRUE(found.exact);
    const Total total = total_of(items, found.choices);
    EXPECT_LE(total.cost, budget);
    EXPECT_DOUBLE_EQ(total.loss, least_by_trying_all(items, budget));
  }
}

// Costs without a common divisor: too many units for the table.
TEST(Knapsack, GreedyIsCloseWhereTheTableWouldBeTooLarge) {
  Rng rng(4);
  std::vector<KnapsackItem> fine = random_items(rng, 600, 1'000'000);
  std::int64_t cheapest = 0;
  for (const KnapsackItem& item : fine) cheapest += item.costs.front();
  const std::int64_t budget = cheapest * 3 / 2;
  const KnapsackChoice exact = solve_knapsack(fine, budget);
  ASSERT_TRUE(exact.exact);
  std::vector<KnapsackItem> odd = fine;
  odd[0].costs.back() += 1;
  const KnapsackChoice greedy = solve_knapsack(odd, budget);
  ASSERT_FALSE(greedy.exact);
  const Total total = total_of(odd, greedy.choices);
  EXPECT_LE(total.cost, budget);
  EXPECT_GE(total.loss, total_of(fine, exact.choices).loss * (1 - 1e-12));
  EXPECT_LE(total.loss, total_of(fine, exact.choices).loss * 1.01);
}

TEST(Knapsack, SpendsNothingThatSavesNothing) {
  const std::vector<KnapsackItem> items = {{{2, 3, 4}, {1, 1, 1}}, {{2, 3, 4}, {5, 4, 4}}};
  EXPECT_EQ(solve_knapsack(items, 100).choices, (std::vector<std::size_t>{0, 1}));
}

}  // namespace
}  // namespace kedge
