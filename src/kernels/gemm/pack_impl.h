// Packing rows of x into tiles, and quantizing them on the way (kernels/gemm/task.h, gemm.h). One source per ISA.
#pragma once

#include <cstring>

#include "kernels/gemm/task.h"

namespace kedge {
namespace {

inline const float* source_row(const PackTask& t, std::int64_t i) {
  return t.x + (t.gather != nullptr ? t.gather[i] : i) * t.ldx;
}

inline void pack_f32(const PackTask& t) noexcept {
  auto* out = static_cast<float*>(t.out);
  const std::int64_t rows = t.rows;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = source_row(t, r);
    if (rows == 1) {
      std::memcpy(out, row, static_cast<std::size_t>(t.k) * 4);
    } else {
      for (std::int64_t k = 0; k < t.k; ++k) {
        out[k * rows + r] = row[k];
      }
    }
  }
  std::memset(out + t.k * rows, 0, static_cast<std::size_t>((t.k_padded - t.k) * rows) * 4);
}

/// Up to kLanes floats, zeros beyond.
inline VF load_part(const float* x, std::int64_t count) {
  if (count >= kLanes) {
    return vload(x);
  }
  alignas(64) float part[kLanes] = {};
  std::memcpy(part, x, static_cast<std::size_t>(count) * 4);
  return vload(part);
}

struct GroupScale {
  float scale, inverse;  // inverse == 0: every q is 0
};

inline GroupScale group_scale(const float* x, std::int64_t size) {
  VI bits = vset_i(0);  // of |x|: NaN and infinity compare above every number
  for (std::int64_t i = 0; i < size; i += kLanes) {
    bits = vmax_i(bits, vand_i(vbits(load_part(x + i, size - i)), vset_i(0x7FFFFFFF)));
  }
  const std::int32_t largest = vreduce_max(bits);
  if (largest >= 0x7F800000) {
    return {__builtin_nanf(""), 0.0f};
  }
  float a;
  std::memcpy(&a, &largest, 4);
  return a < 0x1p-118f ? GroupScale{0.0f, 0.0f} : GroupScale{a / 127.0f, 127.0f / a};
}

/// Hands on the q of [i, i + kLanes), as far as the group goes.
template <class F>
inline void emit_words(VI q, std::int64_t i, std::int64_t size, F&& emit) {
  alignas(16) std::int8_t bytes[kLanes];
  vstore_s8(bytes, q);
  const std::int64_t words = (size - i + 3) / 4 < kLanes / 4 ? (size - i + 3) / 4 : kLanes / 4;
  for (std::int64_t j = 0; j < words; ++j) {
    emit((i + j * 4) / 4, bytes + j * 4);
  }
}

struct GroupSum {
  float scale;  // NaN where a value is not finite
  std::int32_t sum;
};

/// Quantizes one group of a row. emit(k offset, 4 q as one word): words past `size` hold zeros.
template <class F>
inline std::int32_t quantize_group(const float* x, std::int64_t size, float inverse, F&& emit) {
  VI sum = vset_i(0);
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const VI q = inverse == 0.0f ? vset_i(0) : vround(vmul(load_part(x + i, size - i), vset(inverse)));
    sum = vadd_i(sum, q);
    emit_words(q, i, size, emit);
  }
  return vreduce_add(sum);
}

/// The same with a scale that the values did not choose, so that they may lie beyond it.
template <class F>
inline GroupSum quantize_group_static(const float* x, std::int64_t size, float scale, F&& emit) {
  const VF inverse = vset(1.0f / scale), low = vset(-127.0f), high = vset(127.0f);
  VI sum = vset_i(0), largest = vset_i(0);
  for (std::int64_t i = 0; i < size; i += kLanes) {
    const VF part = load_part(x + i, size - i);
    largest = vmax_i(largest, vand_i(vbits(part), vset_i(0x7FFFFFFF)));
    const VI q = vround(vmin_f(vmax_f(vmul(part, inverse), low), high));
    sum = vadd_i(sum, q);
    emit_words(q, i, size, emit);
  }
  return {vreduce_max(largest) >= 0x7F800000 ? __builtin_nanf("") : scale, vreduce_add(sum)};
}

template <class F>
inline void pack_quantized(const PackTask& t, F&& emit) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const float* row = source_row(t, r);
    for (std::int64_t g = 0; g < t.groups; ++g) {
      const std::int64_t begin = g * t.group, size = t.k - begin < t.group ? t.k - begin : t.group;
      const auto emit_at = [&](std::int64_t word, const std::int8_t* q) { emit((begin / 4 + word) * t.rows + r, q); };
      if (t.input_scale != 0.0f) {
        const GroupSum s = quantize_group_static(row + begin, size, t.input_scale, emit_at);
        t.scale[g * t.rows + r] = s.scale;
        t.sum[g * t.rows + r] = s.sum;
        continue;
      }
      const GroupScale s = group_scale(row + begin, size);
      t.scale[g * t.rows + r] = s.scale;
      t.sum[g * t.rows + r] = quantize_group(row + begin, size, s.inverse, emit_at);
    }
    for (std::int64_t word = (t.k + 3) / 4; word < t.k_padded / 4; ++word) {
      constexpr std::int8_t kNone[4] = {};
      emit(word * t.rows + r, kNone);
    }
  }
}

inline void pack_s8(const PackTask& t) noexcept {
  auto* out = static_cast<std::int8_t*>(t.out);
  pack_quantized(t, [&](std::int64_t at, const std::int8_t* q) { std::memcpy(out + at * 4, q, 4); });
}

inline void pack_s16(const PackTask& t) noexcept {
  auto* out = static_cast<std::int16_t*>(t.out);
  pack_quantized(t, [&](std::int64_t at, const std::int8_t* q) {
    std::int16_t* to = out + at * 4;
    to[0] = q[0];
    to[1] = q[2];
    to[2] = q[1];
    to[3] = q[3];
  });
}

}  // namespace
}  // namespace kedge
