#include "stats/bootstrap.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"

namespace kedge {

std::vector<double> bootstrap_replicates(std::size_t units,
                                         const std::function<double(std::span<const std::size_t>)>& statistic,
                                         const BootstrapOptions& options) {
  KEDGE_CHECK(options.resamples > 0);
  std::vector<double> out;
  if (units == 0) return out;
  Rng rng(options.seed);
  std::vector<std::size_t> drawn(units);
  for (int r = 0; r < options.resamples; ++r) {
    for (std::size_t& index : drawn) index = rng.below(units);
    out.push_back(statistic(drawn));
  }
  return out;
}

std::vector<double> holm_adjusted(std::span<const double> p_values) {
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> out(p_values.size());
  double before = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const double factor = static_cast<double>(order.size() - i);
    before = std::max(before, std::min(1.0, factor * p_values[order[i]]));
    out[order[i]] = before;
  }
  return out;
}

}  // namespace kedge
