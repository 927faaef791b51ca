// Sums over one row, and over two or three rows element by element: what the errors of reconstructions are made of.
//
// Consistent arithmetic: 16 lanes, lane l takes the elements l, l + 16, ... ascending by FMA from +0, then the fixed
// tree of kernels/vec/vec16.h. One set per ISA (reduce_<isa>.cc, one source: impl.h), the same bits. No allocation.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace kedge {

struct ReduceKernels {
  /// sum a_i b_i
  float (*dot)(const float* a, const float* b, std::int64_t size) noexcept;
  /// sum (a_i - b_i)^2, the difference rounded first
  float (*squared_distance)(const float* a, const float* b, std::int64_t size) noexcept;
  /// sum huber(a_i - b_i): r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2)  (torch.nn.functional.huber_loss)
  float (*huber_distance)(const float* a, const float* b, std::int64_t size, float delta) noexcept;
  /// sum h_i (q_i - 2 p_i)
  float (*dot_minus_twice)(const float* h, const float* q, const float* p, std::int64_t size) noexcept;
};

const ReduceKernels& reduce_kernels(Isa isa) noexcept;

extern const ReduceKernels reduce_scalar, reduce_avx2, reduce_avx512;

}  // namespace kedge
