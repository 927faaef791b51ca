// Include a kernels/gemm/simd_*.h first.
#pragma once

#include "kernels/moe_ffn/combine.h"

namespace kedge {
namespace {

inline void combine_rows(const CombineTask& t) noexcept {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= t.size; i += 2 * kLanes) {
    VF a = vzero(), b = vzero();
    for (std::int64_t s = 0; s < t.slots; ++s) {
      const float* row = t.pairs + t.pair_of[s] * t.ld + i;
      const VF w = vset(t.weights[s]);
      a = vfma(w, vload(row), a);
      b = vfma(w, vload(row + kLanes), b);
    }
    vstore(t.y + i, a);
    vstore(t.y + i + kLanes, b);
  }
  for (; i < t.size; ++i) {
    float acc = 0.0f;
    for (std::int64_t s = 0; s < t.slots; ++s) {
      acc = __builtin_fmaf(t.weights[s], t.pairs[t.pair_of[s] * t.ld + i], acc);
    }
    t.y[i] = acc;
  }
}

}  // namespace
}  // namespace kedge
