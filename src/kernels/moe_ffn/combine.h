// y[i] = fma chain over slots s ascending of weights[s] * rows[s][i], starting at +0. One source per ISA.
#pragma once

#include <cstdint>

namespace kedge {

struct CombineTask {
  const float* pairs;           ///< row p of the sorted pairs at pairs + p * ld
  std::int64_t ld;
  const std::int32_t* pair_of;  ///< [slots]
  const float* weights;         ///< [slots]
  std::int64_t slots;
  std::int64_t size;
  float* y;
};

using CombineFunction = void (*)(const CombineTask&) noexcept;

void combine_scalar(const CombineTask& t) noexcept;
void combine_avx2(const CombineTask& t) noexcept;
void combine_avx512(const CombineTask& t) noexcept;

}  // namespace kedge
