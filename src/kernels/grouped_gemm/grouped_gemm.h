// Rows sorted by expert, each group of rows times its own expert's matrix:
//   y[r, :] = w[e](x[r, :])   for offsets[e] <= r < offsets[e + 1]        (DeepGEMM's "contiguous" grouping)
// The arithmetic of each product is gemm's (kernels/gemm/gemm.h), row by row.
#pragma once

#include <cstdint>
#include <span>

#include "base/exec.h"
#include "kernels/gemm/gemm.h"

namespace kedge {

/// x: [R, K], y: [R, N], R = offsets.back(); offsets: [E + 1], ascending from 0. All experts share n and k.
/// gather (may be empty): row r of the product reads x[gather[r]] instead of x[r].
void grouped_gemm(const ExecContext& ctx, const float* x, std::span<const std::int32_t> gather,
                  std::span<const std::int32_t> offsets, std::span<const PackedWeight* const> experts, float* y);

}  // namespace kedge
