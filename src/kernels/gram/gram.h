// Weighted products of rows with rows, summed over tokens: the Hessian of a linear layer (y null) and cross products.
//
//   g[i, j] += sum_t w_t x[t, i] y[t, j]        x [rows, n], y [rows, m], w [rows], g [n, m]
//
// Consistent arithmetic: x w is rounded first, then one fp32 FMA chain per output over t ascending, begun at g: so a
// sum over many calls depends on the order of the tokens only, not on how calls cut it.
// GPTQ (arXiv 2210.17323): H = 2 sum x x^T; MoEQuant (arXiv 2505.03804) weighs by the router's score.
#pragma once

#include <cstdint>
#include <span>

#include "base/exec.h"

namespace kedge {

struct GramJob {
  const float* x = nullptr;
  std::int64_t ldx = 0;
  const float* y = nullptr;  ///< null: y = x, and only j >= i of g is computed (below the diagonal g is undefined)
  std::int64_t ldy = 0;
  const float* weights = nullptr;         ///< [rows], or null: all 1
  const std::int32_t* row_ids = nullptr;  ///< [rows], or null: token t is row row_ids[t] of x and y; w stays w[t]
  std::int64_t rows = 0, n = 0, m = 0;    ///< m is not read when y is null
  float* g = nullptr;
  std::int64_t ldg = 0;
};

/// All jobs in one parallel_for over (job, tile of g); no two may write to the same g. Scratch: 512 KiB per thread.
void gram(const ExecContext& ctx, Isa isa, std::span<const GramJob> jobs);
/// g[j, i] = g[i, j] for j > i.
void mirror_upper(const ExecContext& ctx, std::int64_t n, float* g, std::int64_t ldg);

}  // namespace kedge
