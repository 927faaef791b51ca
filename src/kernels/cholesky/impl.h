// Source of cholesky_<isa>.cc, which define KEDGE_CHOLESKY_KERNELS (the set's name) before including it.
#include "kernels/cholesky/block.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

constexpr int kVectors = static_cast<int>(kCholeskyColumns / kLanes);

KEDGE_VEC std::int64_t least(std::int64_t x, std::int64_t y) { return x < y ? x : y; }

bool factor_block(float* a, std::int64_t lda, std::int64_t size) noexcept {
  constexpr std::int64_t kWidth = kCholeskyBlock;
  alignas(64) float s[kCholeskyBlock * kWidth] = {};
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = i; j < size; ++j) s[i * kWidth + j] = a[i * lda + j];
  }
  for (std::int64_t k = 0; k < size; ++k) {
    float* row = s + k * kWidth;
    const float pivot = row[k];
    if (!(pivot > 0.0f && pivot < __builtin_inff())) return false;
    const float root = __builtin_sqrtf(pivot);
    const V16 divisor = set1(root);
    // Whole vectors: what they touch left of the diagonal is never read as part of the factor.
    for (std::int64_t j = k / kLanes * kLanes; j < size; j += kLanes) store(row + j, div(load(row + j), divisor));
    row[k] = root;
    for (std::int64_t i = k + 1; i < size; ++i) {
      const V16 x = set1(-row[i]);
      float* to = s + i * kWidth;
      for (std::int64_t j = i / kLanes * kLanes; j < size; j += kLanes) {
        store(to + j, fma(x, load(row + j), load(to + j)));
      }
    }
  }
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = i; j < size; ++j) a[i * lda + j] = s[i * kWidth + j];
  }
  return true;
}

/// Row i of x, all columns: less the products with rows [begin, end), then divided.
KEDGE_VEC void solve_row(const float* c, std::int64_t i, std::int64_t begin, std::int64_t end, float* x) {
  V16 acc[kVectors];
  float* row = x + i * kCholeskyColumns;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) acc[v] = load(row + v * kLanes);
  for (std::int64_t k = begin; k < end; ++k) {
    const V16 y = set1(-c[k]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[v] = fma(y, load(x + k * kCholeskyColumns + v * kLanes), acc[v]);
  }
  const V16 divisor = set1(c[i]);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) store(row + v * kLanes, div(acc[v], divisor));
}

void solve_block(const float* c, std::int64_t ldc, std::int64_t size, bool backward, float* x, std::int64_t ldx,
                 std::int64_t columns) noexcept {
  // Rows of x lie a power of two apart more often than not, which a first-level cache cannot hold: work on a copy.
  alignas(64) float copy[kCholeskyBlock * kCholeskyColumns];
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = 0; j < kCholeskyColumns; j += kLanes) {
      const std::int64_t count = least(kLanes, columns - j);
      const float* from = x + i * ldx + j;
      store(copy + i * kCholeskyColumns + j,
            count >= kLanes ? load(from) : (count > 0 ? load_tail(from, count, 0.0f) : set1(0.0f)));
    }
  }
  if (backward) {
    for (std::int64_t i = size - 1; i >= 0; --i) solve_row(c + i * ldc, i, i + 1, size, copy);
  } else {
    for (std::int64_t i = 0; i < size; ++i) solve_row(c + i * ldc, i, 0, i, copy);
  }
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = 0; j < columns; j += kLanes) {
      store_tail(x + i * ldx + j, least(kLanes, columns - j), load(copy + i * kCholeskyColumns + j));
    }
  }
}

}  // namespace

const CholeskyKernels KEDGE_CHOLESKY_KERNELS = {factor_block, solve_block};

}  // namespace kedge
