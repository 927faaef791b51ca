#include "moe/permutation.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace kedge {

TokenPermutation make_permutation(const std::int32_t* ids, std::int64_t tokens, std::int64_t k,
                                  std::int64_t num_experts, Arena& arena) {
  const std::int64_t pairs = tokens * k;
  KEDGE_CHECK(pairs <= std::numeric_limits<std::int32_t>::max());
  std::int32_t* offsets = arena.take<std::int32_t>(num_experts + 1);
  std::int32_t* token = arena.take<std::int32_t>(pairs);
  std::int32_t* pair_of = arena.take<std::int32_t>(pairs);
  std::fill(offsets, offsets + num_experts + 1, 0);
  for (std::int64_t i = 0; i < pairs; ++i) {
    KEDGE_CHECK(ids[i] >= 0 && ids[i] < num_experts);
    ++offsets[ids[i] + 1];
  }
  for (std::int64_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];

  ArenaScope scope(arena);
  std::int32_t* next = arena.take<std::int32_t>(num_experts);
  std::copy(offsets, offsets + num_experts, next);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int32_t pair = next[ids[i]]++;
    token[pair] = static_cast<std::int32_t>(i / k);
    pair_of[i] = pair;
  }

  TokenPermutation out;
  out.offsets = {offsets, static_cast<std::size_t>(num_experts + 1)};
  out.token = {token, static_cast<std::size_t>(pairs)};
  out.pair_of = {pair_of, static_cast<std::size_t>(pairs)};
  out.tokens = tokens;
  out.top_k = k;
  return out;
}

}  // namespace kedge
