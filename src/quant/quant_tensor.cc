#include "quant/quant_tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

// Independent lanes let the compiler vectorize a minimum or maximum; order does not matter to either.
constexpr int kLanes = 16;

struct Range {
  float min, max;
};

Range range_of(const float* w, std::int64_t n) noexcept {
  float lo[kLanes] = {}, hi[kLanes] = {};  // zero belongs to every range
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lo[lane] = w[i + lane] < lo[lane] ? w[i + lane] : lo[lane];
      hi[lane] = w[i + lane] > hi[lane] ? w[i + lane] : hi[lane];
    }
  }
  for (; i < n; ++i) {
    lo[0] = w[i] < lo[0] ? w[i] : lo[0];
    hi[0] = w[i] > hi[0] ? w[i] : hi[0];
  }
  return {*std::min_element(lo, lo + kLanes), *std::max_element(hi, hi + kLanes)};
}

float clamp(float x, float lo, float hi) noexcept {
  const float above = x > lo ? x : lo;  // NaN becomes lo, so that a code is always in range
  return above < hi ? above : hi;
}

// Adding 1.5 * 2^23 rounds |x| < 2^22 to an integer, ties to even, and leaves it in the low bits.
constexpr float kRounder = 12582912.0f;

std::uint32_t round_to_bits(float x) noexcept { return std::bit_cast<std::uint32_t>(x + kRounder); }
float round_even(float x) noexcept { return (x + kRounder) - kRounder; }

void encode_group(const float* w, std::int64_t n, float scale, float zero, int mid, std::uint8_t* codes) noexcept {
  const float lo = static_cast<float>(-mid), hi = static_cast<float>(mid - 1);
  const auto offset = static_cast<std::uint32_t>(mid);
  for (std::int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<std::uint8_t>(round_to_bits(clamp(w[i] / scale + zero, lo, hi)) + offset);
  }
}

struct ScaleLimits {
  float max, epsilon;
};

ScaleLimits scale_limits(DType dtype) noexcept {
  switch (dtype) {
    case DType::f16: return {65504.0f, 0x1p-10f};
    case DType::bf16: return {0x1.fep127f, 0x1p-7f};
    default: return {std::numeric_limits<float>::max(), 0x1p-23f};
  }
}

/// Rounded and clamped; may be 0.
float round_scale(float scale, DType dtype) noexcept {
  const float limit = scale_limits(dtype).max;
  const float clamped = clamp(scale, -limit, limit);
  if (dtype == DType::f16) return to_float(to_float16(clamped));
  if (dtype == DType::bf16) return to_float(to_bfloat16(clamped));
  return clamped;
}

}  // namespace

bool all_finite(std::span<const float> values) noexcept {
  // An exponent of all ones is NaN or infinity.
  constexpr std::uint32_t exponent = 0x7f800000u;
  std::uint32_t bad = 0;
  for (const float value : values) bad |= (std::bit_cast<std::uint32_t>(value) & exponent) == exponent ? 1u : 0u;
  return bad == 0;
}

float storable_scale(float scale, DType scale_dtype) noexcept {
  const float rounded = round_scale(scale, scale_dtype);
  return rounded == 0 ? scale_limits(scale_dtype).epsilon : rounded;
}

QuantTensor quantize_rtn(std::span<const float> weights, std::int64_t rows, std::int64_t cols, const QuantArgs& args,
                         DType scale_dtype) {
  KEDGE_CHECK(rows > 0 && cols > 0 && static_cast<std::int64_t>(weights.size()) == rows * cols);
  KEDGE_CHECK(args.num_bits >= 2 && args.num_bits <= 8 && args.group_for(cols) > 0 && cols % args.group_for(cols) == 0);
  KEDGE_CHECK(scale_dtype == DType::f32 || scale_dtype == DType::bf16 || scale_dtype == DType::f16);

  QuantTensor q;
  q.args = args;
  q.rows = rows;
  q.cols = cols;
  q.scale_dtype = scale_dtype;
  const std::int64_t group = q.group(), total = rows * q.groups();
  q.codes.resize(weights.size());
  q.scales.resize(static_cast<std::size_t>(total));
  if (!args.symmetric) q.zeros.resize(static_cast<std::size_t>(total));

  const int mid = args.mid_code();
  const auto steps = static_cast<float>(args.max_code());
  const float lo = static_cast<float>(-mid), hi = static_cast<float>(mid - 1);
  for (std::int64_t i = 0; i < total; ++i) {
    const float* w = weights.data() + i * group;
    const Range range = range_of(w, group);
    const float exact =
        args.symmetric ? std::max(-range.min, range.max) / (steps / 2) : (range.max - range.min) / steps;
    const float rounded = round_scale(exact, scale_dtype);
    const float scale = rounded == 0 ? scale_limits(scale_dtype).epsilon : rounded;
    float zero = 0;
    if (!args.symmetric) {
      if (exact != 0) zero = round_even(clamp(lo - range.min / exact, lo, hi));
      q.zeros[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(static_cast<int>(zero) + mid);
    }
    q.scales[static_cast<std::size_t>(i)] = scale;
    encode_group(w, group, scale, zero, mid, q.codes.data() + i * group);
  }
  return q;
}

void dequantize_row(const QuantTensor& q, std::int64_t row, float* out) noexcept {
  const std::int64_t group = q.group(), groups = q.groups();
  const std::uint8_t* codes = q.codes.data() + row * q.cols;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float scale = q.scales[static_cast<std::size_t>(row * groups + g)];
    const int zero = q.zero(row, g);
    const std::int64_t end = std::min(q.cols, (g + 1) * group);
    for (std::int64_t k = g * group; k < end; ++k) out[k] = static_cast<float>(codes[k] - zero) * scale;
  }
}

void dequantize(const QuantTensor& q, std::span<float> out) {
  KEDGE_CHECK(static_cast<std::int64_t>(out.size()) == q.rows * q.cols);
  for (std::int64_t row = 0; row < q.rows; ++row) dequantize_row(q, row, out.data() + row * q.cols);
}

}  // namespace kedge
