// The scale and zero point of one group of weights.
//
// minmax (compressed-tensors 0.20, calculate_qparams; signed codes in [lo, hi] = [-2^(b-1), 2^(b-1) - 1]):
//   symmetric:  s = max |w| / ((2^b - 1) / 2), z = 0
//   asymmetric: min <= 0 <= max, s = (max - min) / (2^b - 1), z = round_even(clamp(lo - min / s, lo, hi))
// full_range (AutoRound, arXiv 2309.05516), symmetric alone: the larger extreme gets the code lo exactly,
//   s = -m / 2^(b-1), m = max w, or min w where that is larger in magnitude: scales may be negative, and steps are
//   finer (at 3 bits by an eighth); asymmetric as minmax.
// row_search: full_range here; rounding with error feedback (kernels/gptq) tries it with several factors.
// mse: the range (max |w|; min and max) is multiplied by 1 - i / grid for i = 0, 1, ... below max_shrink * grid, and
// the factor with the least  sum_k h_k (w_k - w^_k)^2  wins, the larger one of equals; w^ is decoded with the stored
// scale.
//
// The square, with h = diag(H), is the diagonal of the layer's own error tr((W - W^) H (W - W^)^T). GPTQ's code takes
// |w - w^|^2.4 without h and does not derive it; its grid (100) and max_shrink (0.8) are the defaults here.
#pragma once

#include <cstdint>
#include <span>

#include "quant/scheme.h"
#include "tensor/dtype.h"

namespace kedge {

enum class ScaleMethod { minmax, mse, full_range, row_search };

struct ScaleSearch {
  ScaleMethod method = ScaleMethod::minmax;
  std::span<const float> importance = {};  ///< h, one per column of the matrix, none negative; empty: all 1
  int grid = 100;
  double max_shrink = 0.8;
  float factor = 1;  ///< by which the group's range is multiplied before anything else
};

struct GroupScale {
  float scale;  ///< exactly representable in the dtype of the file, not 0
  float zero;   ///< signed code, integral; 0 when symmetric
};

/// w: `count` weights of one group, finite. importance: their part of ScaleSearch::importance, or null.
/// All arithmetic is fp32, sums have 16 lanes and a fixed tree.
GroupScale find_scale(const float* w, std::int64_t count, const QuantArgs& args, DType scale_dtype,
                      const ScaleSearch& search, const float* importance) noexcept;
/// Stored codes: round_even(clamp(w / s + z, lo, hi)) + 2^(b-1).
void encode_group(const float* w, std::int64_t count, const QuantArgs& args, GroupScale group,
                  std::uint8_t* codes) noexcept;
/// The scale that a file of this dtype can hold: rounded to nearest even, clamped to the largest finite value,
/// epsilon instead of 0.
float storable_scale(float scale, DType scale_dtype) noexcept;

}  // namespace kedge
