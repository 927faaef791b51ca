// A quantized matrix in the affine value format, and its scalar encoder and decoder: the definition of truth.
//
//   w[n, k] = (codes[n, k] - zeros[n, g]) * scales[n, g],   g = k / group,   fp32, one rounding
//
// The integer difference is exact; the product is rounded once to fp32 (exact where scales have <= 16
// significant bits). File layouts (io/wire) and kernel layouts (kernels/gemm) both map to and from this.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/scale_search.h"
#include "quant/scheme.h"
#include "tensor/dtype.h"

namespace kedge {

struct QuantTensor {
  QuantArgs args;
  std::int64_t rows = 0;            ///< N, outputs
  std::int64_t cols = 0;            ///< K, inputs
  DType scale_dtype = DType::bf16;  ///< what the file stores; scales below are exactly representable in it
  std::vector<std::uint8_t> codes;  ///< [N, K], unsigned, 0 .. 2^bits - 1 (signed value + 2^(bits-1))
  std::vector<float> scales;        ///< [N, G]; may be negative (AutoRound's full range)
  std::vector<std::uint8_t> zeros;  ///< [N, G]; empty when symmetric (then mid_code())
  float input_scale = 0;            ///< of inputs quantized to int8 with one scale for all; 0: there is none

  std::int64_t group() const noexcept { return args.group_for(cols); }
  std::int64_t groups() const noexcept { return (cols + group() - 1) / group(); }
  int zero(std::int64_t n, std::int64_t g) const noexcept {
    return zeros.empty() ? args.mid_code() : zeros[static_cast<std::size_t>(n * groups() + g)];
  }
};

/// Round to nearest of weights [rows, cols] (row-major fp32, finite: see all_finite). s and z of a group as
/// `search` says (quant/scale_search.h); by default the reference is compressed-tensors 0.20 (calculate_qparams,
/// _quantize). All arithmetic is fp32, signed codes are in [lo, hi] = [-2^(b-1), 2^(b-1) - 1], the stored ones add
/// 2^(b-1):
///   code = round_even(clamp(w / s + z, lo, hi))
/// z takes s as it is; then s is rounded to scale_dtype (and clamped to its largest finite value) and used for the
/// codes. Where that gives 0 (a group of zeros, or too small for the dtype) s is the dtype's epsilon and every code
/// equals z (0 in a group of zeros), so the group decodes to 0.
/// cols must be a multiple of the group; scale_dtype is f32, bf16 or f16.
QuantTensor quantize_rtn(std::span<const float> weights, std::int64_t rows, std::int64_t cols, const QuantArgs& args,
                         DType scale_dtype, const ScaleSearch& search = {});
/// No NaN and no infinity.
bool all_finite(std::span<const float> values) noexcept;
/// out: [rows, cols].
void dequantize(const QuantTensor& q, std::span<float> out);
/// Rows [first, first + count) as a matrix of their own.
QuantTensor rows_of(const QuantTensor& q, std::int64_t first, std::int64_t count);
/// One row into out [cols].
void dequantize_row(const QuantTensor& q, std::int64_t row, float* out) noexcept;

}  // namespace kedge
