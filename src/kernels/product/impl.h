// Source of product_<isa>.cc, which define KEDGE_PRODUCT_TILE (the function's name) before including it.
//
// a is packed into panels of 8 columns, b into panels of 32, both [k][panel]; the ends are padded with zeros, whose
// outputs nobody keeps. A piece of 8 x 32 outputs stays in registers over a block of k.
#include <cstring>

#include "kernels/product/product.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

constexpr std::int64_t kPanelRows = 8, kPanelCols = 32;
using Eight = float __attribute__((vector_size(kPanelRows * sizeof(float))));

#if KEDGE_VEC_AVX512
constexpr int kMicroRows = 8, kMicroVectors = 2;
#else
constexpr int kMicroRows = 4, kMicroVectors = 1;
#endif

KEDGE_VEC std::int64_t least(std::int64_t x, std::int64_t y) { return x < y ? x : y; }

/// Row k of a tile is row source_row(t, k) of the operands.
KEDGE_VEC std::int64_t source_row(const ProductTile& t, std::int64_t k) { return t.rows != nullptr ? t.rows[k] : k; }

/// What a(k, .) is multiplied by besides: its weight and the sign. Negation is exact.
KEDGE_VEC float factor(const ProductTile& t, std::int64_t k) {
  const float w = t.weights != nullptr ? t.weights[k] : 1.0f;
  return t.subtract ? -w : w;
}

/// Rows of k packed together, all panels of each: rows lie a whole page or more apart, and taking 256 of them for one
/// panel, then again for the next, would miss the caches every time.
constexpr std::int64_t kPackRows = 16;

/// Columns of a one after the other in memory.
void pack_a_rows(const ProductTile& t, std::int64_t k0, std::int64_t depth, float* out) noexcept {
  for (std::int64_t first = 0; first < depth; first += kPackRows) {
    const std::int64_t last = least(depth, first + kPackRows);
    for (std::int64_t i = 0; i < t.m; i += kPanelRows) {
      const std::int64_t count = least(kPanelRows, t.m - i);
      float* panel = out + i * depth;
      for (std::int64_t k = first; k < last; ++k) {
        const float* source = t.a + source_row(t, k0 + k) * t.a_k + i;
        const float f = factor(t, k0 + k);
        float* to = panel + k * kPanelRows;
        if (count == kPanelRows) {
          Eight row;
          std::memcpy(&row, source, sizeof row);
          row *= f;
          std::memcpy(to, &row, sizeof row);
        } else {
          for (std::int64_t l = 0; l < kPanelRows; ++l) to[l] = l < count ? source[l] * f : 0.0f;
        }
      }
    }
  }
}

void pack_a(const ProductTile& t, std::int64_t k0, std::int64_t depth, float* out) noexcept {
  if (t.a_i == 1) {
    pack_a_rows(t, k0, depth, out);
    return;
  }
  std::int64_t at[kProductDepth];
  float by[kProductDepth];
  for (std::int64_t k = 0; k < depth; ++k) {
    at[k] = source_row(t, k0 + k) * t.a_k;
    by[k] = factor(t, k0 + k);
  }
  for (std::int64_t i = 0; i < t.m; i += kPanelRows, out += depth * kPanelRows) {
    const std::int64_t count = least(kPanelRows, t.m - i);
    if (count < kPanelRows) {
      for (std::int64_t e = 0; e < depth * kPanelRows; ++e) out[e] = 0.0f;
    }
    for (std::int64_t l = 0; l < count; ++l) {
      const float* source = t.a + (i + l) * t.a_i;
      for (std::int64_t k = 0; k < depth; ++k) out[k * kPanelRows + l] = source[at[k]] * by[k];
    }
  }
}

void pack_b(const ProductTile& t, std::int64_t k0, std::int64_t depth, float* out) noexcept {
  for (std::int64_t first = 0; first < depth; first += kPackRows) {
    const std::int64_t last = least(depth, first + kPackRows);
    for (std::int64_t j = 0; j < t.n; j += kPanelCols) {
      const std::int64_t count = least(kPanelCols, t.n - j), low = least(count, kLanes);
      for (std::int64_t k = first; k < last; ++k) {
        const float* source = t.b + source_row(t, k0 + k) * t.b_k + j;
        float* to = out + j * depth + k * kPanelCols;
        if (count == kPanelCols) {
          store(to, load(source));
          store(to + kLanes, load(source + kLanes));
        } else {
          store(to, load_tail(source, low, 0.0f));
          store(to + kLanes, load_tail(source + low, count - low, 0.0f));
        }
      }
    }
  }
}

/// c [kMicroRows, 16 kMicroVectors] += a^T b over `depth`; a and b point into their panels.
KEDGE_VEC void micro(const float* a, const float* b, std::int64_t depth, float* c, std::int64_t ldc) {
  V16 acc[kMicroRows][kMicroVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kMicroRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) acc[i][v] = load(c + i * ldc + v * kLanes);
  }
  for (std::int64_t k = 0; k < depth; ++k, a += kPanelRows, b += kPanelCols) {
    V16 y[kMicroVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) y[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kMicroRows; ++i) {
      const V16 x = set1(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < kMicroVectors; ++v) acc[i][v] = fma(x, y[v], acc[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kMicroRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) store(c + i * ldc + v * kLanes, acc[i][v]);
  }
}

void panel_pair(const float* a, const float* b, std::int64_t depth, float* c, std::int64_t ldc) noexcept {
#pragma GCC unroll 2
  for (int i = 0; i < kPanelRows; i += kMicroRows) {
#pragma GCC unroll 2
    for (int j = 0; j < kPanelCols; j += kMicroVectors * kLanes) micro(a + i, b + j, depth, c + i * ldc + j, ldc);
  }
}

/// The same where the piece of c is smaller.
void panel_pair_edge(const float* a, const float* b, std::int64_t depth, float* c, std::int64_t ldc, std::int64_t m,
                     std::int64_t n) noexcept {
  alignas(64) float piece[kPanelRows * kPanelCols] = {};
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) piece[i * kPanelCols + j] = c[i * ldc + j];
  }
  panel_pair(a, b, depth, piece, kPanelCols);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) c[i * ldc + j] = piece[i * kPanelCols + j];
  }
}

}  // namespace

void KEDGE_PRODUCT_TILE(const ProductTile& t) noexcept {
  float* const a = t.scratch;
  float* const b = t.scratch + kProductTile * kProductDepth;
  for (std::int64_t k0 = 0; k0 < t.k; k0 += kProductDepth) {
    const std::int64_t depth = least(kProductDepth, t.k - k0);
    pack_a(t, k0, depth, a);
    pack_b(t, k0, depth, b);
    for (std::int64_t j = 0; j < t.n; j += kPanelCols) {
      const std::int64_t n = least(kPanelCols, t.n - j);
      const std::int64_t end = t.upper ? least(t.m, j + n) : t.m;
      for (std::int64_t i = 0; i < end; i += kPanelRows) {
        const std::int64_t m = least(kPanelRows, t.m - i);
        float* c = t.c + i * t.ldc + j;
        if (m == kPanelRows && n == kPanelCols) {
          panel_pair(a + i * depth, b + j * depth, depth, c, t.ldc);
        } else {
          panel_pair_edge(a + i * depth, b + j * depth, depth, c, t.ldc, m, n);
        }
      }
    }
  }
}

}  // namespace kedge
