// RoutingDiff: how one model's routing of a token differs from another's, layer by layer.
//
// S: the set of the k experts that the original chose, S^ the other model's; w, w^ their combine weights divided by
// their sum over the token; s the original's selection score (logits for softmax routers; sigmoid plus bias, masked
// groups -infinity, for DeepSeek-V3's).
#pragma once

#include <cstdint>
#include <vector>

#include "routing/trace.h"

namespace kedge {

struct TokenDiff {
  double jaccard = 1;  ///< |S n S^| / |S u S^|
  double weighted_agreement =
      1;              ///< sum over experts of min(w_e, w^_e) = 1 - sum |w_e - w^_e| / 2; 1 for equal weights
  double margin = 0;  ///< s_(k) - s_(k+1): how far the original was from another choice; NaN when every
                      ///< expert that could be chosen was
  std::int32_t top_k = 0;
  std::int32_t common = 0;      ///< |S n S^|
  std::int32_t pairs = 0;       ///< pairs of experts in S n S^
  std::int32_t inversions = 0;  ///< of them, those that the two models rank the other way round
  bool top1 = true;             ///< the same first expert

  bool exact_set() const noexcept { return common == top_k; }
};

struct RoutingDiff {
  int layer = 0;
  std::vector<TokenDiff> tokens;  ///< [T]
};

/// Error(mismatch) names what differs: layer, experts, top_k, groups, scoring function.
void require_same_router(int layer_a, const RouterSpec& a, int layer_b, const RouterSpec& b);
/// Error(mismatch) also when the numbers of tokens differ.
RoutingDiff diff_layer(const LayerTrace& original, const LayerTrace& other);

}  // namespace kedge
