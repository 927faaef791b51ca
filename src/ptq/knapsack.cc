#include "ptq/knapsack.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <queue>
#include <tuple>

#include "base/check.h"

namespace kedge {
namespace {

constexpr std::int64_t kMostCells = std::int64_t{1} << 26;

std::int64_t extra(const KnapsackItem& item, std::size_t choice) { return item.costs[choice] - item.costs[0]; }

std::vector<std::size_t> solve_exactly(std::span<const KnapsackItem> items, std::int64_t unit, std::int64_t units) {
  const auto width = static_cast<std::size_t>(units + 1);
  std::vector<double> best(width, 0.0), next(width);
  std::vector<std::uint8_t> taken(items.size() * width);
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (std::size_t u = 0; u < width; ++u) {
      next[u] = std::numeric_limits<double>::infinity();
      for (std::size_t c = 0; c < items[i].costs.size(); ++c) {
        const auto cost = static_cast<std::size_t>(extra(items[i], c) / unit);
        if (cost > u) break;
        const double loss = best[u - cost] + items[i].losses[c];
        if (!(loss < next[u])) continue;
        next[u] = loss;
        taken[i * width + u] = static_cast<std::uint8_t>(c);
      }
    }
    std::swap(best, next);
  }
  std::vector<std::size_t> choices(items.size());
  std::size_t u = width - 1;
  while (u > 0 && best[u - 1] == best[width - 1]) --u;
  for (std::size_t i = items.size(); i-- > 0;) {
    choices[i] = taken[i * width + u];
    u -= static_cast<std::size_t>(extra(items[i], choices[i]) / unit);
  }
  return choices;
}

// The best next choice above `from` on the item's lower convex hull: (loss saved per cost, choice); 0: none saves.
std::pair<double, std::size_t> next_step(const KnapsackItem& item, std::size_t from) {
  std::pair<double, std::size_t> step{0, from};
  for (std::size_t c = from + 1; c < item.costs.size(); ++c) {
    const auto cost = static_cast<double>(std::max<std::int64_t>(item.costs[c] - item.costs[from], 1));
    const double rate = (item.losses[from] - item.losses[c]) / cost;
    if (rate > step.first) step = {rate, c};
  }
  return step;
}

std::vector<std::size_t> solve_greedily(std::span<const KnapsackItem> items, std::int64_t left) {
  std::vector<std::size_t> choices(items.size(), 0);
  using Step = std::tuple<double, std::int64_t, std::size_t>;  // rate, minus the item: the lower index first, choice
  std::priority_queue<Step> steps;
  const auto push = [&](std::size_t item) {
    const auto [rate, choice] = next_step(items[item], choices[item]);
    if (rate > 0) steps.emplace(rate, -static_cast<std::int64_t>(item), choice);
  };
  for (std::size_t i = 0; i < items.size(); ++i) push(i);
  while (!steps.empty()) {
    const auto [rate, minus, choice] = steps.top();
    steps.pop();
    const auto item = static_cast<std::size_t>(-minus);
    const std::int64_t cost = items[item].costs[choice] - items[item].costs[choices[item]];
    if (cost > left) continue;
    left -= cost;
    choices[item] = choice;
    push(item);
  }
  return choices;
}

}  // namespace

KnapsackChoice solve_knapsack(std::span<const KnapsackItem> items, std::int64_t budget) {
  std::int64_t left = budget, most = 0, unit = 0;
  for (const KnapsackItem& item : items) {
    KEDGE_CHECK(!item.costs.empty() && item.costs.size() == item.losses.size());
    left -= item.costs.front();
    most += item.costs.back() - item.costs.front();
    for (std::size_t c = 0; c < item.costs.size(); ++c) unit = std::gcd(unit, extra(item, c));
  }
  KEDGE_CHECK(left >= 0);
  left = std::min(left, most);
  const std::int64_t units = unit > 0 ? left / unit : 0;
  const auto count = static_cast<std::int64_t>(items.size());
  if (units < kMostCells && (units + 1) * count <= kMostCells) {
    return {solve_exactly(items, std::max<std::int64_t>(unit, 1), units), true};
  }
  return {solve_greedily(items, left), false};
}

}  // namespace kedge
