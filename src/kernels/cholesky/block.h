// The pieces of a blocked Cholesky that are not matrix products, one set per ISA (cholesky_<isa>.cc from impl.h), all
// with the same bits.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace kedge {

constexpr std::int64_t kCholeskyBlock = 128;
constexpr std::int64_t kCholeskyColumns = 64;  ///< columns that a solve keeps in the first-level cache: 32 KiB

struct CholeskyKernels {
  /// a [size, size], size <= kCholeskyBlock: its upper triangle becomes s with a = s^T s. False: see cholesky().
  bool (*factor)(float* a, std::int64_t lda, std::int64_t size) noexcept;
  /// Solves for x [size, columns] in place, columns <= kCholeskyColumns. coefficient(i, k) = c[i * ldc + k]:
  ///   forward:  x_i = (x_i - sum_{k < i} c(i, k) x_k) / c(i, i), i ascending
  ///   backward: x_i = (x_i - sum_{k > i} c(i, k) x_k) / c(i, i), i descending; k ascends in both
  void (*solve)(const float* c, std::int64_t ldc, std::int64_t size, bool backward, float* x, std::int64_t ldx,
                std::int64_t columns) noexcept;
};

extern const CholeskyKernels cholesky_scalar, cholesky_avx2, cholesky_avx512;
const CholeskyKernels& cholesky_kernels(Isa isa) noexcept;

}  // namespace kedge
