#include "routing/metrics.h"

#include <cmath>

#include "base/check.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

using Diff = TokenDiff;
double one(const Diff&) { return 1; }
double has_margin(const Diff& d) { return std::isnan(d.margin) ? 0 : 1; }
double flipped_with_margin(const Diff& d) { return d.exact_set() ? 0 : has_margin(d); }

constexpr RoutingMetric metrics[] = {
    {"jaccard", "Jaccard", "|S ∩ Ŝ| / |S ∪ Ŝ|", true, [](const Diff& d) { return d.jaccard; }, one},
    {"exact_set", "exact set", "share of tokens with S = Ŝ", true,
     [](const Diff& d) { return d.exact_set() ? 1.0 : 0.0; }, one},
    {"any_changed", "any changed", "share of tokens with S ≠ Ŝ (1 - exact_set)", false,
     [](const Diff& d) { return d.exact_set() ? 0.0 : 1.0; }, one},
    {"selections_changed", "selections changed", "share of the k selections that are not in Ŝ: 1 - |S ∩ Ŝ| / k", false,
     [](const Diff& d) { return static_cast<double>(d.top_k - d.common); },
     [](const Diff& d) { return static_cast<double>(d.top_k); }},
    {"top1", "same top-1", "share of tokens whose best expert is the same", true,
     [](const Diff& d) { return d.top1 ? 1.0 : 0.0; }, one},
    {"order_inversions", "order inversions",
     "share of the pairs of experts in S ∩ Ŝ that are ranked the other way round", false,
     [](const Diff& d) { return static_cast<double>(d.inversions); },
     [](const Diff& d) { return static_cast<double>(d.pairs); }},
    {"weighted_agreement", "weighted agreement",
     "sum over experts of min(w, ŵ), weights of a token divided by their sum first", true,
     [](const Diff& d) { return d.weighted_agreement; }, one},
    {"margin", "margin", "mean of s_(k) - s_(k+1), the original's selection scores", true,
     [](const Diff& d) { return std::isnan(d.margin) ? 0 : d.margin; }, has_margin},
    {"margin_at_flip", "margin at a flip", "mean of s_(k) - s_(k+1) over tokens with S ≠ Ŝ", true,
     [](const Diff& d) { return flipped_with_margin(d) > 0 ? d.margin : 0; }, flipped_with_margin},
};

using Load = std::span<const double>;

constexpr LoadMetric loads[] = {
    {"js_divergence", "load shift (JS)", "Jensen-Shannon divergence of the two loads, natural log",
     [](Load a, Load b) { return js_divergence(a, b); }},
    {"gini_original", "Gini, original", "Gini coefficient of the original's tokens per expert",
     [](Load a, Load) { return gini(a); }},
    {"gini_quantized", "Gini, quantized", "Gini coefficient of the quantized model's tokens per expert",
     [](Load, Load b) { return gini(b); }},
};

}  // namespace

std::span<const RoutingMetric> routing_metrics() noexcept { return metrics; }
std::span<const LoadMetric> load_metrics() noexcept { return loads; }

std::size_t routing_metric_index(std::string_view name) {
  std::size_t i = 0;
  while (i < std::size(metrics) && metrics[i].name != name) ++i;
  KEDGE_CHECK(i < std::size(metrics));
  return i;
}

}  // namespace kedge
