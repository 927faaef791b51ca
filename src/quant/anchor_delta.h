// The matrices of E experts as a shared anchor and quantized deltas, the rows on a manifold: a value format.
//
//   W_e = R(A + D_e)         A [N, K]: one per layer and projection;  D_e [N, K]: int4 or int2, groupwise, symmetric
//
// On the sphere this is exactly  W_e[i, :] = s[e, i] (A[i, :] + D_e[i, :]),  s[e, i] = t[e, i] / ||A_i + D_ei||  with
// t = 1 or a stored target norm, and so, for products,
//   (x W_e^T)[i] = s[e, i] ((x A^T)[i] + (x D_e^T)[i]).
// s is fp32: as fp16 it would cost 5e-4. On the Stiefel manifolds rows mix, nothing of that is stored, and decode()
// retracts. Arithmetic of decode(): d = (code - 2^(b-1)) scale, one rounding; a + d, one rounding; times s, one
// rounding.
//
// 2:4 masks: of four neighbouring weights of a delta two may differ from zero. A mask belongs to one or more experts
// (mask_of), so tokens that are grouped by expert are grouped by mask; the zeros have the code of zero, so that
// arithmetic knows no masks, only storage does.
//
// Stored bits per weight:  b_anchor / E + b + 16 / g + 32 / K  (b / 2 + M / E with M masks; the last term on the
// sphere, twice with target norms). With E = 4, fp16 anchor, int4, g = 64 that is 8.25 and the row scales: what plain
// int8 costs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kedge/error.h"
#include "quant/manifold.h"
#include "quant/quant_tensor.h"
#include "tensor/tensor.h"

namespace kedge {

struct AnchorDeltaArgs {
  DType anchor_dtype = DType::f16;  ///< f16, bf16, or i8: codes of 8 bits in groups of group_size, fp16 scales
  int num_bits = 4;                 ///< of the deltas: 4 or 2
  std::int64_t group_size = 64;     ///< 32, 64 or 128, along K
  Manifold manifold = Manifold::sphere;

  bool operator==(const AnchorDeltaArgs&) const = default;
  QuantArgs delta_args() const noexcept { return {num_bits, true, QuantStrategy::group, group_size}; }
  QuantArgs anchor_args() const noexcept { return {8, true, QuantStrategy::group, group_size}; }
};

/// A stack of E matrices without its contents.
struct StackShape {
  AnchorDeltaArgs args;
  std::int64_t experts = 0, rows = 0, cols = 0;  ///< E, N, K
  bool target_norms = false;
  std::int64_t masks = 0;
};
/// As bits_per_weight of such a stack.
double bits_per_weight(const StackShape& stack) noexcept;

/// Which two of each four neighbours are kept: [N, K / 4], bit j for the neighbour 4 i + j; two bits are set.
using TwoFourMask = std::vector<std::uint8_t>;

struct AnchorDelta {
  AnchorDeltaArgs args;
  std::int64_t rows = 0, cols = 0;    ///< N, K
  Tensor anchor;                      ///< [N, K] f16 or bf16; not read when args.anchor_dtype is i8
  QuantTensor anchor_codes;           ///< only when args.anchor_dtype is i8
  std::vector<QuantTensor> deltas;    ///< [E]
  std::vector<float> row_scale;       ///< [E, N] on the sphere, else empty
  std::vector<float> target_norm;     ///< [E, N], or empty: 1
  std::vector<TwoFourMask> masks;     ///< [M]
  std::vector<std::int32_t> mask_of;  ///< [E] index into masks; empty without masks

  std::int64_t experts() const noexcept { return static_cast<std::int64_t>(deltas.size()); }
  StackShape shape() const noexcept {
    return {args, experts(), rows, cols, !target_norm.empty(), static_cast<std::int64_t>(masks.size())};
  }
};

/// Error(code) for a group that does not divide the row, a width, a group or an anchor type that does not exist, more
/// rows than columns on a Stiefel manifold; `where` names the matrix.
void check_args(const AnchorDeltaArgs& args, std::int64_t rows, std::int64_t cols, const std::string& where,
                ErrorCode code = ErrorCode::usage);

struct AnchorDeltaOptions {
  bool keep_norms = false;  ///< sphere: rows keep the norms they have; otherwise they become 1
  std::int64_t masks = 0;   ///< number of 2:4 masks; expert e uses mask e modulo this
  ScaleSearch search = {};  ///< of the deltas' scales; importance is not read
};

/// weights: [E, N, K]. They are put on the manifold, the anchor is the mean of the experts in its type, each delta is
/// rounded to nearest against the anchor as stored. A mask keeps the two with the largest sum of squares over its
/// experts. Errors: check_args; Error(bad_file) for weights that are not finite and rows without a direction.
AnchorDelta encode_anchor_delta(std::span<const float> weights, std::int64_t experts, std::int64_t rows,
                                std::int64_t cols, const AnchorDeltaArgs& args, const AnchorDeltaOptions& options,
                                const std::string& where);

/// Stores the anchor [N, K] in the type that w.args names; w.rows and w.cols are set.
void set_anchor(AnchorDelta& w, std::span<const float> anchor);
/// The anchor as fp32, [N, K].
void decode_anchor(const AnchorDelta& w, std::span<float> out);
/// W_e, [N, K].
void decode(const AnchorDelta& w, std::int64_t expert, std::span<float> out);
/// Sets row_scale from anchor, deltas and target norms (nothing to do off the sphere). Error(bad_file) as retract().
void set_row_scales(AnchorDelta& w, const std::string& where);

/// Sphere: largest | ||W_e[i]|| - t | / t over all experts and rows; Stiefel: largest orthonormality_error; none: 0.
double manifold_error(const AnchorDelta& w);
/// All that is stored, over E N K.
double bits_per_weight(const AnchorDelta& w) noexcept;

/// What a file could have got wrong: sizes, codes, values that are not finite, masks, row scales that do not belong to
/// anchor and deltas (relative 1e-6). Error(bad_file), for the last Error(mismatch).
void check_anchor_delta(const AnchorDelta& w, const std::string& where);

}  // namespace kedge
