#include "routing/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace kedge {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
// 10^-5 to 10^3 in quarters of a decade: logit margins of trained routers lie within, sigmoid scores' too.
constexpr int bins_per_decade = 4, first_decade = -5, margin_bins = 8 * bins_per_decade;

double bin_edge(int i) { return std::pow(10.0, first_decade + static_cast<double>(i) / bins_per_decade); }

int bin_of(double margin) {
  if (!(margin > 0)) return 0;
  return static_cast<int>(
      std::clamp(std::floor((std::log10(margin) - first_decade) * bins_per_decade), 0.0, margin_bins - 1.0));
}

// Nothing counted: no value. (No flip has no margin.)
Interval ratio(const std::vector<double>& numerators, const std::vector<double>& denominators) {
  if (std::accumulate(denominators.begin(), denominators.end(), 0.0) == 0) return {nan, nan, nan, nan, 0};
  return ratio_interval(numerators, denominators);
}

}  // namespace

RoutingComparison::RoutingComparison(std::vector<std::pair<int, RouterSpec>> layers) : layers_(std::move(layers)) {
  sums_.assign(layers_.size(), std::vector<Sums>(routing_metrics().size()));
  load_[0].resize(layers_.size());
  load_[1].resize(layers_.size());
}

std::int64_t RoutingComparison::tokens() const noexcept {
  return std::accumulate(sequence_tokens_.begin(), sequence_tokens_.end(), std::int64_t{0});
}

void RoutingComparison::count_load(std::size_t layer, const LayerTrace& trace, bool other) {
  Counts& load = load_[other ? 1 : 0][layer];
  const std::size_t begin = load.size();
  load.resize(begin + static_cast<std::size_t>(layers_[layer].second.num_experts), 0);
  for (std::int32_t expert : trace.expert_ids) ++load[begin + static_cast<std::size_t>(expert)];
}

void RoutingComparison::count_margins(const RoutingDiff& diff) {
  const std::size_t begin = margin_tokens_.size() - margin_bins;
  for (const TokenDiff& token : diff.tokens) {
    if (std::isnan(token.margin)) continue;
    const std::size_t bin = begin + static_cast<std::size_t>(bin_of(token.margin));
    ++margin_tokens_[bin];
    margin_flips_[bin] += token.exact_set() ? 0 : 1;
  }
}

void RoutingComparison::add_sequence(std::span<const LayerTrace> original, std::span<const LayerTrace> other) {
  KEDGE_CHECK(original.size() == layers_.size() && other.size() == layers_.size() && !layers_.empty());
  std::vector<RoutingDiff> diffs;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    require_same_router(layers_[l].first, layers_[l].second, original[l].layer, original[l].router);
    diffs.push_back(diff_layer(original[l], other[l]));
    KEDGE_CHECK(diffs[l].tokens.size() == diffs[0].tokens.size());
  }
  const std::size_t tokens = diffs[0].tokens.size();
  std::vector<std::size_t> first(tokens, layers_.size());
  margin_tokens_.resize(margin_tokens_.size() + margin_bins, 0);
  margin_flips_.resize(margin_flips_.size() + margin_bins, 0);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (std::size_t m = 0; m < routing_metrics().size(); ++m) {
      double numerator = 0, denominator = 0;
      for (const TokenDiff& token : diffs[l].tokens) {
        numerator += routing_metrics()[m].numerator(token);
        denominator += routing_metrics()[m].denominator(token);
      }
      sums_[l][m].numerators.push_back(numerator);
      sums_[l][m].denominators.push_back(denominator);
    }
    count_load(l, original[l], false);
    count_load(l, other[l], true);
    count_margins(diffs[l]);
    for (std::size_t t = 0; t < tokens; ++t) {
      if (first[t] == layers_.size() && !diffs[l].tokens[t].exact_set()) first[t] = l;
    }
  }
  const std::size_t begin = first_flip_.size();
  first_flip_.resize(begin + layers_.size() + 1, 0);
  for (std::size_t l : first) ++first_flip_[begin + l];
  sequence_tokens_.push_back(static_cast<std::int64_t>(tokens));
}

Interval RoutingComparison::layer_metric(std::size_t layer, std::size_t metric) const {
  return ratio(sums_[layer][metric].numerators, sums_[layer][metric].denominators);
}

Interval RoutingComparison::mean_metric(std::size_t metric, const std::vector<bool>& only) const {
  std::vector<double> numerators, denominators;
  for (std::size_t s = 0; s < sequence_tokens_.size(); ++s) {
    if (!only.empty() && !only[s]) continue;
    double numerator = 0, denominator = 0;
    for (const auto& layer : sums_) {
      numerator += layer[metric].numerators[s];
      denominator += layer[metric].denominators[s];
    }
    numerators.push_back(numerator);
    denominators.push_back(denominator);
  }
  return ratio(numerators, denominators);
}

std::vector<double> RoutingComparison::sequence_values(std::size_t metric) const {
  std::vector<double> values;
  for (std::size_t s = 0; s < sequence_tokens_.size(); ++s) {
    double numerator = 0, denominator = 0;
    for (const auto& layer : sums_) {
      numerator += layer[metric].numerators[s];
      denominator += layer[metric].denominators[s];
    }
    values.push_back(denominator > 0 ? numerator / denominator : nan);
  }
  return values;
}

// Delete-one jackknife of the mean of a load metric over `layers`.
Interval RoutingComparison::jackknife(std::span<const std::size_t> layers, std::size_t metric) const {
  const auto value = load_metrics()[metric].value;
  const std::size_t n = sequence_tokens_.size();
  double whole = 0;
  std::vector<double> without(n, 0.0);
  for (std::size_t l : layers) {
    const auto e = static_cast<std::size_t>(layers_[l].second.num_experts);
    std::vector<double> total[2], rest[2];
    for (int m = 0; m < 2; ++m) {
      total[m].assign(e, 0.0);
      for (std::size_t i = 0; i < load_[m][l].size(); ++i) total[m][i % e] += load_[m][l][i];
    }
    whole += value(total[0], total[1]) / static_cast<double>(layers.size());
    for (std::size_t s = 0; s < n && n > 1; ++s) {
      for (int m = 0; m < 2; ++m) {
        rest[m] = total[m];
        for (std::size_t i = 0; i < e; ++i) rest[m][i] -= load_[m][l][s * e + i];
      }
      without[s] += value(rest[0], rest[1]) / static_cast<double>(layers.size());
    }
  }
  Interval interval{whole, whole, whole, nan, static_cast<std::int64_t>(n)};
  if (n < 2) return interval;
  const double count = static_cast<double>(n), centre = std::accumulate(without.begin(), without.end(), 0.0) / count;
  double squares = 0;
  for (double v : without) squares += (v - centre) * (v - centre);
  interval.standard_error = std::sqrt(squares * (count - 1) / count);
  const double reach = student_t_quantile(0.975, count - 1) * interval.standard_error;
  // Divergences and Gini coefficients lie in [0, 1].
  interval.low = std::max(0.0, whole - reach);
  interval.high = std::min(1.0, whole + reach);
  return interval;
}

Interval RoutingComparison::layer_load(std::size_t layer, std::size_t metric) const {
  return jackknife(std::span(&layer, 1), metric);
}

Interval RoutingComparison::mean_load(std::size_t metric) const {
  std::vector<std::size_t> all(layers_.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return jackknife(all, metric);
}

std::vector<std::int64_t> RoutingComparison::tokens_per_expert(std::size_t layer, bool other) const {
  const auto e = static_cast<std::size_t>(layers_[layer].second.num_experts);
  std::vector<std::int64_t> counts(e, 0);
  const Counts& load = load_[other ? 1 : 0][layer];
  for (std::size_t i = 0; i < load.size(); ++i) counts[i % e] += load[i];
  return counts;
}

std::vector<Interval> RoutingComparison::first_flip() const {
  const std::size_t width = layers_.size() + 1;
  const std::vector<double> tokens(sequence_tokens_.begin(), sequence_tokens_.end());
  std::vector<Interval> shares;
  for (std::size_t l = 0; l < width; ++l) {
    std::vector<double> counts;
    for (std::size_t s = 0; s < tokens.size(); ++s) counts.push_back(first_flip_[s * width + l]);
    shares.push_back(ratio(counts, tokens));
  }
  return shares;
}

std::vector<MarginBin> RoutingComparison::flips_by_margin() const {
  std::vector<MarginBin> bins;
  for (int b = 0; b < margin_bins; ++b) {
    std::vector<double> tokens, flips;
    for (std::size_t s = 0; s < sequence_tokens_.size(); ++s) {
      const std::size_t at = s * margin_bins + static_cast<std::size_t>(b);
      tokens.push_back(margin_tokens_[at]);
      flips.push_back(margin_flips_[at]);
    }
    MarginBin bin{bin_edge(b), bin_edge(b + 1), 0, 0, ratio(flips, tokens)};
    bin.tokens = static_cast<std::int64_t>(std::accumulate(tokens.begin(), tokens.end(), 0.0));
    bin.flips = static_cast<std::int64_t>(std::accumulate(flips.begin(), flips.end(), 0.0));
    if (bin.tokens > 0 || !bins.empty()) bins.push_back(bin);
  }
  while (!bins.empty() && bins.back().tokens == 0) bins.pop_back();
  return bins;
}

}  // namespace kedge
