// y[m, n] = sum_k x[m, k] * w[n, k]   (torch.nn.Linear without bias; w is [N, K] as Hugging Face stores it)
//
// Consistent arithmetic, fp32 activations: for each output one fp32 FMA chain, k ascending from 0, starting at +0:
//   acc = fma(x[m, k], w[n, k], acc);  w of a quantized tensor is (code - zero) * scale, rounded once to fp32;
//   of deltas on an anchor (quant/anchor_delta.h) s[n] * (a[n, k] + (code - zero) * scale), rounded after each step.
// int8 activations (quantized weights without an anchor only): x is quantized per row and per weight group (group = K
// for channel):
//   a = max |x| over the group, sx = a / 127, q = round_even(x * (127 / a)) in [-127, 127] (a == 0: q = 0, sx = 0)
//   acc = fma(float(isum), sx * sw[n, g], acc), groups ascending, isum = sum (code - zero) * q exact in int32.
// With a static input_scale s in the weight's description every group has sx = s and
//   q = round_even(min(max(x * (1 / s), -127), 127)), 1 / s rounded once
// (sx * sw is rounded to fp32 first.) An a below 2^-118 (127 / a could overflow) counts as 0; a that is not finite
// gives q = 0 and sx = NaN, so the row's outputs are NaN; with a static scale a value that is not finite gives sx = NaN.
// Every row of the table computes exactly these bits in consistent mode.
// `fast` rows may reassociate. Weights are packed once, at load, into the layout of the row chosen.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/gemm/format.h"
#include "quant/quant_tensor.h"
#include "tensor/tensor.h"

namespace kedge {

const char* weight_format_name(WeightFormat format) noexcept;

struct GemmDesc {
  std::int64_t n = 0;  ///< outputs
  std::int64_t k = 0;  ///< inputs
  WeightFormat format = WeightFormat::f32;
  std::int64_t group = 0;   ///< elements per scale; affine formats only
  bool asymmetric = false;  ///< has zero points of its own
  int zero_point = 0;       ///< of every group when symmetric
  ScaleType scale_type = ScaleType::f32;
  float input_scale = 0;  ///< static scale of int8 rows, 2^-118 at least; 0: from each row's values
  bool anchored = false;  ///< affine4 codes are deltas on an anchor
};

struct PackedAnchor;  // kernels/gemm/layout.h

/// A weight in a kernel's layout. Opaque outside src/kernels. Movable, not copyable.
class PackedWeight {
 public:
  PackedWeight() = default;
  const GemmDesc& desc() const noexcept { return desc_; }
  std::int64_t n() const noexcept { return desc_.n; }
  std::int64_t k() const noexcept { return desc_.k; }
  /// Without an anchor's, which others share.
  std::size_t num_bytes() const noexcept { return bytes_ + row_scale_.size() * sizeof(float); }

  // For src/kernels only.
  GemmDesc desc_;
  LoadOptions options_;
  int layout_ = 0;                    ///< kernels/gemm/layout.h
  Buffer storage_;                    ///< codes, scales, zeros; empty when PackedExperts holds the bytes
  const std::byte* bytes_at_ = nullptr;
  std::size_t bytes_ = 0;
  std::shared_ptr<const PackedAnchor> anchor_;  ///< of desc_.anchored
  std::vector<float> row_scale_;                ///< s of gemm.h for desc_.anchored, n rounded up to 16
};

/// Packs a plain [n, k] matrix (f32, bf16, f16 stay in that type; f64 becomes f32).
PackedWeight pack_weight(const TensorView& weight, const LoadOptions& options);
/// Error(bad_file) for scales that are not finite or reach 2^100.
PackedWeight pack_weight(const QuantTensor& weight, const LoadOptions& options);
/// An anchor for several pack_anchored(): f16, bf16, or 8-bit codes.
std::shared_ptr<const PackedAnchor> pack_anchor(PackedWeight anchor);
std::size_t anchor_bytes(const PackedAnchor& anchor) noexcept;
/// delta: 4 or 2 bits, scales that fp16 holds, groups as the anchor's; row_scale: [n], or empty: 1. Reads fp32
/// activations whatever the options say. Error(bad_file) as pack_weight.
PackedWeight pack_anchored(const QuantTensor& delta, std::shared_ptr<const PackedAnchor> anchor,
                           std::span<const float> row_scale, const LoadOptions& options);

/// x: [m, k] rows ldx apart; y: [m, n] rows ldy apart. Work is split over panels and row tiles.
void gemm(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t m, const PackedWeight& w, float* y,
          std::int64_t ldy);

/// Which row serves a weight at m rows, and why others were refused (for --explain).
std::string explain_gemm(const GemmDesc& desc, const LoadOptions& options, std::int64_t m);

}  // namespace kedge
