// Routing of two models over many sequences: sums per sequence, from which every metric and its interval follow.
// Memory grows with the number of sequences, not of tokens.
//
// Intervals are over sequences. A mean over layers pools the tokens of all layers (layers have equally many tokens,
// so it is the plain mean of the layers, save for metrics whose denominator varies: order_inversions, margin_at_flip).
// Load metrics are of the whole text's counts; their errors come from the jackknife over sequences.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "routing/metrics.h"
#include "stats/intervals.h"

namespace kedge {

/// Token-layers by the original's margin; edges are powers of 10^(1/4), the outer bins are open.
struct MarginBin {
  double low = 0, high = 0;
  std::int64_t tokens = 0, flips = 0;
  Interval flip_rate;
};

class RoutingComparison {
 public:
  /// layers: the MoE layers of both models, ascending.
  explicit RoutingComparison(std::vector<std::pair<int, RouterSpec>> layers);

  /// One sequence: the traces of all layers in order. Error(mismatch) as diff_layer.
  void add_sequence(std::span<const LayerTrace> original, std::span<const LayerTrace> other);

  std::size_t layers() const noexcept { return layers_.size(); }
  int layer_number(std::size_t layer) const noexcept { return layers_[layer].first; }
  const RouterSpec& router(std::size_t layer) const noexcept { return layers_[layer].second; }
  std::int64_t sequences() const noexcept { return static_cast<std::int64_t>(sequence_tokens_.size()); }
  std::int64_t tokens() const noexcept;

  Interval layer_metric(std::size_t layer, std::size_t metric) const;
  /// only: the sequences that count; empty for all.
  Interval mean_metric(std::size_t metric, const std::vector<bool>& only = {}) const;
  /// Per sequence, over all layers; NaN where the denominator is 0.
  std::vector<double> sequence_values(std::size_t metric) const;
  Interval layer_load(std::size_t layer, std::size_t metric) const;
  Interval mean_load(std::size_t metric) const;
  /// [E]; other: the second model's.
  std::vector<std::int64_t> tokens_per_expert(std::size_t layer, bool other) const;
  /// Share of tokens whose first changed set is in the i-th MoE layer; the last entry: in none. [layers + 1]
  std::vector<Interval> first_flip() const;
  /// The occupied bins and those between them.
  std::vector<MarginBin> flips_by_margin() const;

 private:
  struct Sums {
    std::vector<double> numerators, denominators;  ///< [S]
  };
  using Counts = std::vector<std::uint32_t>;
  void count_load(std::size_t layer, const LayerTrace& trace, bool other);
  void count_margins(const RoutingDiff& diff);
  Interval jackknife(std::span<const std::size_t> layers, std::size_t metric) const;

  std::vector<std::pair<int, RouterSpec>> layers_;
  std::vector<std::vector<Sums>> sums_;        ///< [layers][metrics]
  std::vector<Counts> load_[2];                ///< [layers], each [S, E]
  Counts first_flip_;                          ///< [S, layers + 1]
  Counts margin_tokens_, margin_flips_;        ///< [S, bins]
  std::vector<std::int64_t> sequence_tokens_;  ///< [S]
};

}  // namespace kedge
