// GPTQ: rounding with error feedback (Frantar et al., arXiv 2210.17323), and GPTAQ (Li et al., arXiv 2504.02692).
//
// Columns are rounded one after another, and what rounding column i did is made up for by the columns after it. With
// H the Hessian of the layer's inputs and U upper triangular, H^-1 = U^T U (kernels/cholesky, gptq_factor):
//
//   e_i = (w_i - w^_i) / U_ii;    w_j <- w_j - e_i U_ij  for j > i
//
// which minimises tr((W - W^) H (W - W^)^T) greedily; that error is sum e^2. GPTAQ also moves the target: with X the
// layer's inputs in the quantized model and X~ those in the original,
//
//   w_j <- w_j + w_i P_ij  for j > i,   P = alpha triu((X~ - X) X^T U^T, 1) U
//
// where w_i is the column as it stood before rounding, in and after its block alike: the result is that of the
// algorithm without blocks. (The authors' code takes the rounded column for the columns after the block.)
//
// A group's scale and zero point come from its weights as they stand when its first column is reached. With `order`
// they come from the original weights before anything is rounded, so that a group stays a run of neighbouring columns.
//
// With `output_factor` the error also counts per output: G = L D L^T, L unit lower triangular, says what errors of the
// outputs together cost, tr(G E H E^T) with E = W^ - W = sum_r D_rr |(L^T E)_r|^2_H. Rows are rounded from the last to
// the first, some at a time, each against w_r - sum_{s > r} L_sr E_s, so that their errors cancel where G is large.
// Rows of one step do not see each other. (Kronecker-factored curvature in rounding: YAQA, arXiv 2505.22988.)
//
// With ScaleMethod::row_search each row is rounded with ranges of 1, 0.95, ... 0.75 times its groups', and keeps the
// codes and scales with the least sum e^2, the larger factor of equals.
//
// Codes, scales and zero points are those of quantize_rtn (quant/quant_tensor.h); with U = 1 so is the result.
//
// Consistent arithmetic: per weight one fp32 FMA chain over i ascending (with P: alternating within a block, then per
// block all of U before all of P). Blocks of at most 128 columns are cut so that no group starts within one that it
// does not end in. Rows are independent and lie in the lanes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/exec.h"
#include "quant/quant_tensor.h"

namespace kedge {

struct GptqInput {
  std::span<const float> weights;  ///< [rows, cols], finite: what the codes are to come near to
  std::int64_t rows = 0, cols = 0;
  QuantArgs args;
  DType scale_dtype = DType::bf16;
  const float* factor = nullptr;             ///< U [cols, cols]; of the permuted Hessian when there is an order
  const float* asymmetric = nullptr;         ///< P [cols, cols], read above the diagonal, permuted likewise; null: GPTQ
  std::span<const std::int32_t> order = {};  ///< position p is column order[p]; empty: as they stand
  const float* output_factor = nullptr;      ///< L [rows, rows], read below the diagonal; null: outputs count alike
  std::span<const float> scales_of = {};  ///< [rows, cols]: takes the scales of these; needs an order; empty: of `weights`
  ScaleSearch search = {};                   ///< importance per column of `weights`
};

struct GptqResult {
  QuantTensor tensor;
  double error = 0;  ///< sum e^2, of the rows as they were kept; without `asymmetric` it is tr((W - W^) H (W - W^)^T)
};

/// cols must be a multiple of the group. Scratch per thread: 256 cols + 700 KiB or so.
GptqResult gptq(const ExecContext& ctx, Isa isa, const GptqInput& input);

/// Columns by descending diagonal of the Hessian (GPTQ's act_order); equal ones stay in order.
std::vector<std::int32_t> descending_order(std::span<const float> diagonal);
/// out[p, q] = h[order[p], order[q]] for square [n, n] matrices without padding; both triangles of h are read.
void permute_symmetric(const ExecContext& ctx, std::span<const std::int32_t> order, const float* h, float* out);
/// GPTAQ's P from cross = (X~ - X) X^T [n, n], which must be in the scale of H, and U. alpha: 0.25 in the paper's code.
/// Scratch: n^2 floats.
void gptaq_asymmetric(const ExecContext& ctx, Isa isa, std::int64_t n, const float* cross, const float* factor,
                      float alpha, float* p);

}  // namespace kedge
