#include "quant/scale_search.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace kedge {
namespace {

// Independent lanes let the compiler vectorize; the order does not matter to a minimum, and is fixed for a sum.
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

inline float clamp(float x, float lo, float hi) noexcept {
  const float above = x > lo ? x : lo;  // NaN becomes lo, so that a code is always in range
  return above < hi ? above : hi;
}

// Adding 1.5 * 2^23 rounds |x| < 2^22 to an integer, ties to even, and leaves it in the low bits.
constexpr float kRounder = 12582912.0f;

std::uint32_t round_to_bits(float x) noexcept { return std::bit_cast<std::uint32_t>(x + kRounder); }
float round_even(float x) noexcept { return (x + kRounder) - kRounder; }

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

struct CodeRange {
  explicit CodeRange(const QuantArgs& args) noexcept
      : lo(static_cast<float>(-args.mid_code())), hi(static_cast<float>(args.mid_code() - 1)) {}
  float lo, hi;
};

float exact_scale(Range range, const QuantArgs& args, ScaleMethod method) noexcept {
  const auto steps = static_cast<float>(args.max_code());
  if (!args.symmetric) return (range.max - range.min) / steps;
  if (method != ScaleMethod::full_range && method != ScaleMethod::row_search)
    return std::max(-range.min, range.max) / (steps / 2);
  return (range.max < -range.min ? -range.min : -range.max) / static_cast<float>(args.mid_code());
}

GroupScale scale_of_range(Range range, const QuantArgs& args, DType dtype, ScaleMethod method) noexcept {
  const CodeRange codes(args);
  const float exact = exact_scale(range, args, method);
  GroupScale group{storable_scale(exact, dtype), 0};
  if (!args.symmetric && exact != 0) {
    group.zero = round_even(clamp(codes.lo - range.min / exact, codes.lo, codes.hi));
  }
  return group;
}

/// sum_k h_k (w_k - w^_k)^2, lane k mod 16.
float group_error(const float* w, std::int64_t n, const QuantArgs& args, GroupScale group,
                  const float* importance) noexcept {
  const CodeRange codes(args);
  float sums[kLanes] = {};
  const auto error = [&](std::int64_t i) {
    const float code = round_even(clamp(w[i] / group.scale + group.zero, codes.lo, codes.hi));
    const float difference = w[i] - (code - group.zero) * group.scale;
    return difference * difference;
  };
  const auto add = [&](std::int64_t i, int count) {
    if (importance == nullptr) {
      for (int lane = 0; lane < count; ++lane) sums[lane] += error(i + lane);
    } else {
      for (int lane = 0; lane < count; ++lane) sums[lane] += error(i + lane) * importance[i + lane];
    }
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(i, kLanes);
  add(i, static_cast<int>(n - i));
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int lane = 0; lane < step; ++lane) sums[lane] += sums[lane + step];
  }
  return sums[0];
}

}  // namespace

GroupScale find_scale(const float* w, std::int64_t count, const QuantArgs& args, DType scale_dtype,
                      const ScaleSearch& search, const float* importance) noexcept {
  const Range extremes = range_of(w, count);
  const Range range{extremes.min * search.factor, extremes.max * search.factor};
  GroupScale best = scale_of_range(range, args, scale_dtype, search.method);
  if (search.method != ScaleMethod::mse) return best;
  float least = group_error(w, count, args, best, importance);
  const int steps = static_cast<int>(search.max_shrink * search.grid);
  for (int i = 1; i < steps; ++i) {
    const float shrink = 1.0f - static_cast<float>(i) / static_cast<float>(search.grid);
    const GroupScale group = scale_of_range({range.min * shrink, range.max * shrink}, args, scale_dtype, search.method);
    const float error = group_error(w, count, args, group, importance);
    if (error < least) {
      least = error;
      best = group;
    }
  }
  return best;
}

void encode_group(const float* w, std::int64_t count, const QuantArgs& args, GroupScale group,
                  std::uint8_t* codes) noexcept {
  const CodeRange range(args);
  const auto offset = static_cast<std::uint32_t>(args.mid_code());
  for (std::int64_t i = 0; i < count; ++i) {
    codes[i] =
        static_cast<std::uint8_t>(round_to_bits(clamp(w[i] / group.scale + group.zero, range.lo, range.hi)) + offset);
  }
}

float storable_scale(float scale, DType scale_dtype) noexcept {
  const float rounded = round_scale(scale, scale_dtype);
  return rounded == 0 ? scale_limits(scale_dtype).epsilon : rounded;
}

}  // namespace kedge
