// Rows of token-expert pairs sorted by expert, with gradients that gather too.
//
// libtorch's own gradient of a gather is index_add, which on a GPU adds in any order: here each token's k gradients are
// gathered and summed in slot order, so a run repeats to the bit.
#pragma once

#include "twin/tensor.h"

namespace kedge::twin {

/// P = N * k pairs. Pair p of the sorted order is (token, slot) = divmod(order[p], k).
struct Pairs {
  std::int64_t top_k = 0;
  std::vector<std::int64_t> counts;  ///< [E] pairs of each expert; on the host
  Tensor order;                      ///< [P] int64: position in [N, k] of sorted pair p
  Tensor inverse;                    ///< [P] int64: where (token, slot) went
};

/// ids: [N, k] int64. Stable: by token, then slot, within an expert.
Pairs sort_pairs(const Tensor& ids, std::int64_t num_experts);
/// [N, H] -> [P, H], sorted.
Tensor gather_tokens(const Tensor& x, const Pairs& pairs);
/// [P, H], sorted -> [N, k, H].
Tensor restore_slots(const Tensor& sorted, const Pairs& pairs);

}  // namespace kedge::twin
