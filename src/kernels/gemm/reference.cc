// The scalar rows: the formulas of gemm.h, one output at a time. row_tile is 1, so packed rows are plain rows.
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/gemm/layout.h"
#include "kernels/gemm/rows.h"

namespace kedge::gemm_rows {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000u;
constexpr float kSmallestMaximum = 0x1p-118f;

void quantize_group(const float* x, std::int64_t size, std::int8_t* q, float* scale, std::int32_t* sum) noexcept {
  std::uint32_t bits = 0;  // of the largest |x|: NaN and infinity compare above every number
  for (std::int64_t i = 0; i < size; ++i) {
    bits = std::max(bits, std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu);
  }
  const float a = std::bit_cast<float>(bits);
  *sum = 0;
  if (bits >= kInfinityBits || a < kSmallestMaximum) {
    *scale = bits >= kInfinityBits ? std::bit_cast<float>(0x7FC00000u) : 0.0f;
    std::memset(q, 0, static_cast<std::size_t>(size));
    return;
  }
  *scale = a / 127.0f;
  const float inverse = 127.0f / a;
  for (std::int64_t i = 0; i < size; ++i) {
    const int value = static_cast<int>(std::nearbyint(x[i] * inverse));
    q[i] = static_cast<std::int8_t>(value);
    *sum += value;
  }
}

void quantize_group_static(const float* x, std::int64_t size, float input_scale, std::int8_t* q, float* scale,
                           std::int32_t* sum) noexcept {
  const float inverse = 1.0f / input_scale;
  *scale = input_scale;
  *sum = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    if (!std::isfinite(x[i])) *scale = std::bit_cast<float>(0x7FC00000u);
    const float clipped = std::fmin(std::fmax(x[i] * inverse, -127.0f), 127.0f);
    const int value = static_cast<int>(std::nearbyint(clipped));
    q[i] = static_cast<std::int8_t>(value);
    *sum += value;
  }
}

const float* source_row(const PackTask& t, std::int64_t i) noexcept {
  return t.x + (t.gather != nullptr ? t.gather[i] : i) * t.ldx;
}

}  // namespace

void pack_f32_reference(const PackTask& t) noexcept {
  auto* out = static_cast<float*>(t.out);
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const float* row = source_row(t, r);
    for (std::int64_t k = 0; k < t.k_padded; ++k) {
      out[k * t.rows + r] = k < t.k ? row[k] : 0.0f;
    }
  }
}

void pack_s8_reference(const PackTask& t) noexcept {
  auto* out = static_cast<std::int8_t*>(t.out);
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const float* row = source_row(t, r);
    std::int8_t* q = out + r * t.k_padded;
    for (std::int64_t g = 0; g < t.groups; ++g) {
      const std::int64_t begin = g * t.group;
      const std::int64_t size = std::min(t.group, t.k - begin);
      float* scale = t.scale + g * t.rows + r;
      std::int32_t* sum = t.sum + g * t.rows + r;
      if (t.input_scale != 0.0f) {
        quantize_group_static(row + begin, size, t.input_scale, q + begin, scale, sum);
      } else {
        quantize_group(row + begin, size, q + begin, scale, sum);
      }
    }
    std::memset(q + t.k, 0, static_cast<std::size_t>(t.k_padded - t.k));
  }
}

void run_fp32_reference(const GemmTask& t) noexcept {
  const auto* x = static_cast<const float*>(t.x);
  const std::int64_t first = t.panel_begin * kPanel, end = std::min(t.panel_end * kPanel, t.w.n);
  for (std::int64_t n = first; n < end; ++n) {
    float acc[kRowBlock] = {};
    for (std::int64_t k = 0; k < t.w.k; ++k) {
      const float w = weight_at(t.w, n, k);
      for (std::int64_t r = 0; r < t.rows; ++r) {
        acc[r] = std::fma(x[r * t.k_padded + k], w, acc[r]);
      }
    }
    for (std::int64_t r = 0; r < t.rows; ++r) {
      t.y[r * t.ldy + n - t.y_column] = acc[r];
    }
  }
}

void run_int8_reference(const GemmTask& t) noexcept {
  const auto* x = static_cast<const std::int8_t*>(t.x);
  const std::int64_t first = t.panel_begin * kPanel, end = std::min(t.panel_end * kPanel, t.w.n);
  for (std::int64_t n = first; n < end; ++n) {
    for (std::int64_t r = 0; r < t.rows; ++r) {
      float acc = 0.0f;
      for (std::int64_t g = 0; g < t.w.groups; ++g) {
        const std::int64_t k_end = std::min((g + 1) * t.w.group, t.w.k);
        std::int64_t isum = 0;
        for (std::int64_t k = g * t.w.group; k < k_end; ++k) {
          isum += (code_at(t.w, n, k) - zero_at(t.w, n, g)) * x[r * t.k_padded + k];
        }
        const float scale = t.scale[r * t.w.groups + g] * scale_at(t.w, n, g);
        acc = std::fma(static_cast<float>(isum), scale, acc);
      }
      t.y[r * t.ldy + n - t.y_column] = acc;
    }
  }
}

}  // namespace kedge::gemm_rows
