// Token-expert pairs sorted by expert: a counting sort, stable by token and slot.
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

/// ids: [tokens, k], each in [0, num_experts). The permutation lives in the arena, until the caller's scope ends.
TokenPermutation make_permutation(const std::int32_t* ids, std::int64_t tokens, std::int64_t k,
                                  std::int64_t num_experts, Arena& arena);

}  // namespace kedge
