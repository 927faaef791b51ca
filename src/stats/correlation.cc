#include "stats/correlation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double pearson(std::span<const double> x, std::span<const double> y) {
  KEDGE_CHECK(x.size() == y.size());
  if (x.size() < 2) return kNaN;
  const double mx = mean_of(x), my = mean_of(y);
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  if (xx == 0 || yy == 0) return kNaN;
  return std::clamp(xy / std::sqrt(xx) / std::sqrt(yy), -1.0, 1.0);
}

std::vector<double> average_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    // Ranks begin + 1 .. end.
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end + 1) / 2;
    begin = end;
  }
  return ranks;
}

double spearman(std::span<const double> x, std::span<const double> y) {
  return pearson(average_ranks(x), average_ranks(y));
}

Correlation bootstrap_correlation(CorrelationFunction f, std::span<const double> x, std::span<const double> y,
                                  std::span<const int> clusters, const BootstrapOptions& options) {
  KEDGE_CHECK(x.size() == y.size() && x.size() == clusters.size() && options.resamples > 0);
  std::map<int, std::vector<std::size_t>> members;
  for (std::size_t i = 0; i < clusters.size(); ++i) members[clusters[i]].push_back(i);
  std::vector<std::vector<std::size_t>> groups;
  for (auto& [cluster, points] : members) groups.push_back(std::move(points));
  Correlation out{f(x, y), kNaN, kNaN, static_cast<std::int64_t>(x.size()), static_cast<std::int64_t>(groups.size())};
  if (groups.size() < 3 || std::isnan(out.value)) return out;

  Rng rng(options.seed);
  std::vector<double> values, sx, sy;
  for (int r = 0; r < options.resamples; ++r) {
    sx.clear(), sy.clear();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      for (const std::size_t i : groups[rng.below(groups.size())]) sx.push_back(x[i]), sy.push_back(y[i]);
    }
    const double value = f(sx, sy);
    if (!std::isnan(value)) values.push_back(value);
  }
  if (values.empty()) return out;
  const double tail = (1 - options.confidence) / 2;
  out.low = quantile(values, tail);
  out.high = quantile(values, 1 - tail);
  return out;
}

}  // namespace kedge
