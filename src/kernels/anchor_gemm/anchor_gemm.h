// Products with E matrices of one shape: plain ones, or ones that share an anchor (quant/anchor_delta.h).
//
// Three forms of a shared anchor on the sphere (and without a manifold, s = 1):
//   fused     y[i] = (x W_e^T)[i]   W_e[i] = s[e, i] (A[i] + D_e[i]) made in registers as it is read; of a batch's
//             experts each panel of A is turned to fp32 once
//   decoded   y[i] = (x W_e^T)[i]   W_e decoded at load into fp32: the same bits as fused
//   split     y[i] = s[e, i] ((x A^T)[i] + (x D_e^T)[i])   two products of kernels/gemm, one addition, one
//             multiplication
// fused and split store b_anchor / E + b bits per weight. fused computes k products for k experts per row, split 1 + k,
// which pays where all experts see every row: stacked matrices are split where fused is asked for. Split also is the
// only form with int8 activations of the deltas, so fused becomes split there. decoded reads 32 bits per weight. split
// agrees with the others to rounding (1e-5 relative to the row's norm), not to the bit: the form is part of what a
// model is loaded as, never chosen by the number of rows. Stiefel rows are decoded always: an r x r mixing of rows
// after the product would cost what their orthonormality saves.
//
// Arithmetic is kernels/gemm's, so consistent; an output depends on its own row of x alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/gemm/gemm.h"
#include "quant/anchor_delta.h"

namespace kedge {

enum class AnchorForm : std::uint8_t { fused, split, decoded };
const char* anchor_form_name(AnchorForm form) noexcept;  ///< "fused", "split", "decoded"
/// Error(usage) lists the names.
AnchorForm parse_anchor_form(const std::string& name);

/// Weights of E experts as they come from a file or a test: one of the two. A view; the owner stays.
struct ExpertMatrices {
  std::span<const float> plain;         ///< [E, N, K]
  const AnchorDelta* shared = nullptr;  ///< E, N, K of its own
  bool empty() const noexcept { return plain.empty() && shared == nullptr; }
};

/// W_e of all experts in fp32, [E, N, K]. Error(mismatch) names `where` when the sizes are others; Error(bad_file) for
/// plain weights that are not finite.
std::vector<float> decode_experts(const ExpertMatrices& weights, std::int64_t experts, std::int64_t n, std::int64_t k,
                                  const std::string& where);

/// E matrices [N, K] in kernel layouts. Movable.
class PackedExpertMatrices {
 public:
  PackedExpertMatrices() = default;
  /// stacked: the experts' rows as one matrix [E N, K], for anchor_gemm_all; otherwise one matrix per expert.
  /// Errors: decode_experts'.
  PackedExpertMatrices(const ExpertMatrices& weights, std::int64_t experts, std::int64_t n, std::int64_t k,
                       bool stacked, AnchorForm form, const LoadOptions& options, const std::string& where);

  std::int64_t experts() const noexcept { return experts_; }
  std::int64_t n() const noexcept { return n_; }
  std::int64_t k() const noexcept { return k_; }
  /// What they became; plain matrices are "decoded".
  AnchorForm form() const noexcept { return form_; }
  /// Split, and the anchor's product is linear in the experts' inputs: no row is scaled after it.
  bool anchor_is_linear() const noexcept { return form_ == AnchorForm::split && row_scale_.empty(); }
  std::size_t num_bytes() const noexcept;
  std::size_t shared_bytes() const noexcept;  ///< the anchor's

  // For src/kernels only.
  void pack_shared(const AnchorDelta& shared, const LoadOptions& options);
  std::int64_t experts_ = 0, n_ = 0, k_ = 0;
  bool stacked_ = false;
  AnchorForm form_ = AnchorForm::decoded;
  PackedWeight anchor_;              ///< [N, K] when split
  std::vector<PackedWeight> parts_;  ///< deltas or matrices: [E], or one when stacked
  std::vector<float> row_scale_;     ///< [E, N] when split, or empty: 1
};

/// y[t, e N + i] for all experts. x: [T, K]; y: [T, E N]. w: stacked.
void anchor_gemm_all(const ExecContext& ctx, const float* x, std::int64_t tokens, const PackedExpertMatrices& w,
                     float* y);
/// One expert on all rows. x: [T, K] rows ldx apart; y: [T, N]. w: not stacked.
void anchor_gemm_one(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t tokens,
                     const PackedExpertMatrices& w, std::int64_t expert, float* y);

/// Rows sorted by expert, as grouped_gemm: offsets [E + 1], P = offsets.back(). y: [P, N].
struct GroupedRows {
  const float* x = nullptr;  ///< [rows, K]
  std::int64_t rows = 0;
  std::span<const std::int32_t> gather;  ///< [P]: row p reads x[gather[p]]; empty: x[p], rows = P
  std::span<const std::int32_t> offsets;
};
/// w: not stacked. A split anchor's product is made once per row of x where these are fewer than pairs.
void anchor_gemm_grouped(const ExecContext& ctx, const GroupedRows& in, const PackedExpertMatrices& w, float* y);
/// x D_e^T alone; with anchor_gemm_shared, for callers that may sum over experts before the anchor's product. w: not
/// stacked, with anchor_is_linear().
void anchor_gemm_deltas(const ExecContext& ctx, const GroupedRows& in, const PackedExpertMatrices& w, float* y);
/// y[t] += x[t] A^T. x: [T, K]; y: [T, N].
void anchor_gemm_shared(const ExecContext& ctx, const float* x, std::int64_t tokens, const PackedExpertMatrices& w,
                        float* y);

}  // namespace kedge
