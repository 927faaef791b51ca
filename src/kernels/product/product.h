// The blocked fp32 product under the dense linear algebra of calibration (gram, cholesky, gptq).
//
//   c[i, j] = c[i, j] +- sum_k a(k, i) b(k, j)
//
// One fp32 FMA chain per output, begun at c and k ascending; a weighted a is rounded to fp32 first. Tiles, packing and
// blocks of k change no bit: the chain goes on through memory. Source of the blocking: Goto and van de Geijn, Anatomy
// of High-Performance Matrix Multiplication (2008), with both operands packed per tile so that tiles are independent.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "base/exec.h"

namespace kedge {

constexpr std::int64_t kProductTile = 256;   ///< most rows and columns of one tile
constexpr std::int64_t kProductDepth = 256;  ///< k of one packed block: with the tile, 2 x 256 KiB
/// Floats of scratch that one product_tile call needs.
constexpr std::int64_t kProductScratch = 2 * kProductTile * kProductDepth;

struct ProductTile {
  const float* a = nullptr;  ///< a(k, i) = a[k * a_k + i * a_i]
  std::int64_t a_k = 0, a_i = 1;
  const float* b = nullptr;  ///< b(k, j) = b[k * b_k + j]
  std::int64_t b_k = 0;
  std::int64_t k = 0, m = 0, n = 0;  ///< m, n at most kProductTile; k any
  float* c = nullptr;                ///< [m, n]
  std::int64_t ldc = 0;
  const std::int32_t* rows = nullptr;  ///< [k], or null: k stands for rows[k] in a and b
  const float* weights = nullptr;      ///< [k], or null: a(k, i) is a(k, i) * weights[k], rounded
  bool subtract = false;
  bool upper = false;        ///< only j >= i is wanted; below the diagonal c is left or overwritten
  float* scratch = nullptr;  ///< [kProductScratch], aligned to 64 bytes
};

using ProductKernel = void (*)(const ProductTile&) noexcept;
ProductKernel product_kernel(Isa isa) noexcept;

/// Tiles of a product with any m and n, in parallel; scratch and upper are not read. Scratch: 512 KiB per thread.
void product(const ExecContext& ctx, Isa isa, const ProductTile& whole);

void product_tile_scalar(const ProductTile&) noexcept;
void product_tile_avx2(const ProductTile&) noexcept;
void product_tile_avx512(const ProductTile&) noexcept;

}  // namespace kedge
