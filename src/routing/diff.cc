#include "routing/diff.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include "kedge/error.h"

namespace kedge {
namespace {

void require_equal(int layer, const char* what, const std::string& a, const std::string& b) {
  if (a == b) return;
  throw Error(
      ErrorCode::mismatch,
      std::string("the models differ in the ") + what + " of layer " + std::to_string(layer) + ": " + a + " and " + b,
      "two forms of one model");
}

int slot_of(std::span<const std::int32_t> ids, std::int32_t expert) {
  const auto at = std::find(ids.begin(), ids.end(), expert);
  return at == ids.end() ? -1 : static_cast<int>(at - ids.begin());
}

double normalised(std::span<const float> weights, std::size_t slot, double sum) {
  // All weights zero: each expert counts alike.
  return sum > 0 ? weights[slot] / sum : 1.0 / static_cast<double>(weights.size());
}

double sum_of(std::span<const float> weights) {
  double sum = 0;
  for (float w : weights) sum += w;
  return sum;
}

double weight_distance(std::span<const std::int32_t> ids_a, std::span<const float> a,
                       std::span<const std::int32_t> ids_b, std::span<const float> b) {
  const double sum_a = sum_of(a), sum_b = sum_of(b);
  double distance = 0;
  for (std::size_t i = 0; i < ids_a.size(); ++i) {
    const int j = slot_of(ids_b, ids_a[i]);
    distance += std::fabs(normalised(a, i, sum_a) - (j < 0 ? 0.0 : normalised(b, static_cast<std::size_t>(j), sum_b)));
  }
  for (std::size_t j = 0; j < ids_b.size(); ++j) {
    if (slot_of(ids_a, ids_b[j]) < 0) distance += normalised(b, j, sum_b);
  }
  return distance;
}

double boundary_margin(std::span<const std::int32_t> ids, std::span<const float> scores) {
  float worst_in = std::numeric_limits<float>::infinity(), best_out = -std::numeric_limits<float>::infinity();
  for (std::size_t e = 0; e < scores.size(); ++e) {
    if (slot_of(ids, static_cast<std::int32_t>(e)) >= 0) {
      worst_in = std::min(worst_in, scores[e]);
    } else {
      best_out = std::max(best_out, scores[e]);
    }
  }
  const double margin = static_cast<double>(worst_in) - static_cast<double>(best_out);
  return std::isfinite(margin) ? margin : std::numeric_limits<double>::quiet_NaN();
}

TokenDiff diff_token(std::span<const std::int32_t> ids_a, std::span<const float> w_a, std::span<const float> scores,
                     std::span<const std::int32_t> ids_b, std::span<const float> w_b) {
  TokenDiff diff;
  diff.top_k = static_cast<std::int32_t>(ids_a.size());
  diff.top1 = ids_a[0] == ids_b[0];
  for (std::size_t i = 0; i < ids_a.size(); ++i) {
    const int slot_i = slot_of(ids_b, ids_a[i]);
    if (slot_i < 0) continue;
    diff.pairs += diff.common++;
    for (std::size_t h = 0; h < i; ++h) {
      const int slot_h = slot_of(ids_b, ids_a[h]);
      diff.inversions += slot_h > slot_i ? 1 : 0;
    }
  }
  diff.jaccard = static_cast<double>(diff.common) / (2 * diff.top_k - diff.common);
  diff.weighted_agreement = std::max(0.0, 1 - weight_distance(ids_a, w_a, ids_b, w_b) / 2);
  diff.margin = boundary_margin(ids_a, scores);
  return diff;
}

}  // namespace

void require_same_router(int layer_a, const RouterSpec& a, int layer_b, const RouterSpec& b) {
  if (layer_a != layer_b) {
    throw Error(ErrorCode::mismatch,
                "the models differ in which layers are MoE layers: " + std::to_string(layer_a) + " and " +
                    std::to_string(layer_b),
                "two forms of one model");
  }
  const auto text = [](std::int64_t n) { return std::to_string(n); };
  const auto scoring = [](ScoringFunc f) { return std::string(f == ScoringFunc::sigmoid ? "sigmoid" : "softmax"); };
  require_equal(layer_a, "number of experts", text(a.num_experts), text(b.num_experts));
  require_equal(layer_a, "experts per token", text(a.num_experts_per_tok), text(b.num_experts_per_tok));
  require_equal(layer_a, "scoring function", scoring(a.scoring_func), scoring(b.scoring_func));
  require_equal(layer_a, "expert groups", text(a.n_group), text(b.n_group));
  require_equal(layer_a, "groups per token", text(a.topk_group), text(b.topk_group));
}

RoutingDiff diff_layer(const LayerTrace& original, const LayerTrace& other) {
  require_same_router(original.layer, original.router, other.layer, other.router);
  require_equal(original.layer, "number of tokens traced", std::to_string(original.tokens()),
                std::to_string(other.tokens()));
  const auto k = static_cast<std::size_t>(original.router.num_experts_per_tok),
             e = static_cast<std::size_t>(original.router.num_experts);
  RoutingDiff diff;
  diff.layer = original.layer;
  diff.tokens.reserve(static_cast<std::size_t>(original.tokens()));
  for (std::size_t t = 0; t < static_cast<std::size_t>(original.tokens()); ++t) {
    const auto row = [&](const auto& values, std::size_t width) { return std::span(values).subspan(t * width, width); };
    diff.tokens.push_back(diff_token(row(original.expert_ids, k), row(original.weights, k), row(original.scores, e),
                                     row(other.expert_ids, k), row(other.weights, k)));
  }
  return diff;
}

}  // namespace kedge
