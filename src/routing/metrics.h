// The routing metrics by name. A new one is a row of a table in metrics.cc.
#pragma once

#include <span>
#include <string_view>

#include "routing/diff.h"

namespace kedge {

/// A ratio of sums over tokens: sum of numerators / sum of denominators.
struct RoutingMetric {
  const char* name;   ///< key in report.json
  const char* title;  ///< for people
  const char* formula;
  bool higher_is_better;
  double (*numerator)(const TokenDiff&);
  double (*denominator)(const TokenDiff&);
};
std::span<const RoutingMetric> routing_metrics() noexcept;

/// A function of how many tokens each expert of a layer got from the two models, [E] each.
struct LoadMetric {
  const char* name;
  const char* title;
  const char* formula;
  double (*value)(std::span<const double> original, std::span<const double> other);
};
std::span<const LoadMetric> load_metrics() noexcept;

/// Index in routing_metrics(); CHECKs that it exists.
std::size_t routing_metric_index(std::string_view name);

}  // namespace kedge
