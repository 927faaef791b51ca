// Fake quantization with tunable rounding and clipping, and its sign-gradient step (SignRound, Cheng et al., arXiv
// 2309.05516, as the package auto-round 0.16 computes it).
//
// Of one group of weights w with min <= 0 <= max, b bits, alpha and beta in [0, 1], factor f (1 unless tuned), V:
//   asymmetric: s = f (beta max - alpha min) / (2^b - 1), z = round(-alpha min / s)
//   symmetric:  s = f m / 2^(b-1), m = -beta max, or -alpha min where that is larger in magnitude; z = 2^(b-1); so the
//               larger extreme gets the code 0 and scales may be negative
//   w^ = s c,   c = clamp(round(w / s + V), -z, 2^b - 1 - z)
// s is rounded to the dtype of the file and kept from 0 (1e-5, or 1e-8 in fp32) before it is used; z is clamped to
// [0, 2^b - 1]; rounding is to even.
//
// Gradients pass straight through every rounding; a clamped c has none by V. With g = dL/dw^, over a group:
//   dL/ds = sum g c - sum_in g w / s [- (sum_out g) alpha min / s],   dL/dV = g s where c is not clamped
// (in brackets: asymmetric, through z; alpha also gets min sum_out g). A step is p <- p - lr sign(dL/dp), then V is
// clamped to [-0.5, 0.5], alpha and beta to [0, 1], f to [0.5, 2].
//
// Consistent: sums have 16 lanes and the fixed tree; groups are independent.
#pragma once

#include <cstdint>
#include <span>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "quant/quant_tensor.h"

namespace kedge {

/// A matrix under tuning; G groups of `group` neighbouring weights in a row.
struct FakeQuantMatrix {
  QuantArgs args;
  DType scale_dtype = DType::bf16;
  std::int64_t groups = 0, group = 0;
  const float* weights = nullptr;  ///< [G, group], finite
  const float* min = nullptr;      ///< [G], <= 0
  const float* max = nullptr;      ///< [G], >= 0
  float* rounding = nullptr;       ///< V [G, group]; null: not tuned, 0
  float* alpha = nullptr;          ///< [G]
  float* beta = nullptr;           ///< [G]
  float* factor = nullptr;         ///< f [G]; null: not tuned, 1
};

/// min and max [G] of each group of weights [G, group], 0 among them.
void find_group_ranges(const float* weights, std::int64_t groups, std::int64_t group, float* min, float* max) noexcept;

/// out[i] [G, group] of each matrix.
void fake_quantize(ThreadPool& threads, Isa isa, std::span<const FakeQuantMatrix> matrices,
                   std::span<float* const> out);
/// One step down. gradients[i]: dL/dw^ [G, group] of the w^ that the parameters give; null: that matrix stays.
void step_fake_quantization(ThreadPool& threads, Isa isa, std::span<const FakeQuantMatrix> matrices,
                            std::span<const float* const> gradients, float lr);
/// The codes, scales and zero points whose decoding is fake_quantize's result.
QuantTensor encode_fake_quantized(Isa isa, const FakeQuantMatrix& matrix, std::int64_t rows, std::int64_t cols);

}  // namespace kedge
