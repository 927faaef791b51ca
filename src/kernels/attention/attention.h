// Scaled dot-product attention of new tokens over a KV cache, grouped-query, causal or not.
//
//   s_j = scale * dot(q, k_j) for the visible j;  p = softmax(s);  out = sum_j p_j v_j
// Consistent arithmetic: dot = 16 lanes over d ascending (lane = d mod 16), FMA, then the fixed tree; exact maximum;
// exp of kernels/vec; the sum in 16 lanes over j, fixed tree; out an FMA chain over j ascending, then one divide.
#pragma once

#include <cstdint>

#include "base/exec.h"

namespace kedge {

struct AttentionDesc {
  std::int64_t num_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;      ///< of q and k
  std::int64_t value_dim = 0;     ///< of v and the output
  float scale = 1.0f;
  std::int64_t sliding_window = 0;  ///< 0: none; else token i sees (i - window, i]
  bool causal = true;               ///< else each token sees all start + T, and there is no window
};

/// One sequence. q: [T, heads, head_dim] contiguous, token t at position start + t.
/// k: [kv_heads][capacity][head_dim], v: [kv_heads][capacity][value_dim], both filled up to start + T.
/// out: [T, heads, value_dim]. Scratch: per thread, scores of at most 32 (token, head) rows. Throws only bad_alloc.
void attention(const ExecContext& ctx, const AttentionDesc& desc, const float* q, std::int64_t tokens,
               std::int64_t start, const float* k, const float* v, std::int64_t capacity, float* out, Isa isa);

}  // namespace kedge
