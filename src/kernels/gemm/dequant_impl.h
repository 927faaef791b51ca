// Weights to fp32 in registers; one source compiled per ISA (include a simd_*.h first).
//
// A code is moved into the mantissa of a float in [1, 2) by masking a word loaded at the right byte offset, so no
// shift is needed: v = 1 + code * 2^-p exactly. Then
//   fused    w = fma(v, s * 2^p, -(2^p + zero) * s): exact, hence equal to round((code - zero) * s), while the last
//            product fits in 24 bits: nibbles (p = 7, 11) with scales of <= 11 significant bits, bytes (p = 15) with 8
//   general  w = (v - (1 + zero * 2^-p)) * (s * 2^p): the difference and the scaling are exact, one rounding
// Deltas on an anchor are added to it and scaled by row, each step rounded as gemm.h states.
// The sign of a zero w may differ from the formula's; no accumulator can see it (kernels/gemm/task.h).
#pragma once

#include "kernels/gemm/task.h"

namespace kedge {
namespace {

inline VF load_scale(const WeightView& w, std::int64_t at) {
  switch (w.scale_type) {
    case ScaleType::bf16: return vload_bf16(static_cast<const std::uint16_t*>(w.scales) + at);
    case ScaleType::f16: return vload_f16(static_cast<const std::uint16_t*>(w.scales) + at);
    case ScaleType::f32: break;
  }
  return vload(static_cast<const float*>(w.scales) + at);
}

inline VF load_zero(const WeightView& w, std::int64_t at) {
  return vto_float(w.zeros == nullptr ? vset_i(w.zero_point) : vload_u8(w.zeros + at));
}

/// Position of half h of a panel's group among scales and zeros.
inline std::int64_t group_at(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
  return (panel * w.groups + g) * kPanel + h * kLanes;
}

/// Panels computed together. A missing one reads the first again and its results are dropped.
struct PanelSet {
  std::int64_t first;
  std::int64_t step;  // 1, or 0 when only `first` exists
  int count;          // panels to store
};

struct Scaled {
  VF a, b;
};

template <bool kFused>
inline Scaled scaled(VF s, VF zero, float power) {
  if constexpr (kFused) {
    return {vmul(s, vset(power)), vmul(vadd(zero, vset(power)), vsub(vzero(), s))};
  } else {
    return {vmul(s, vset(power)), vadd(vset(1.0f), vmul(zero, vset(1.0f / power)))};
  }
}

template <bool kFused>
inline VF apply(VF v, const Scaled& c) {
  if constexpr (kFused) {
    return vfma(v, c.a, c.b);
  } else {
    return vmul(vsub(v, c.b), c.a);
  }
}

constexpr std::int32_t kOneBits = 0x3F800000;

// Each policy: kStep values of k per block of kHalfBytes * kHalves bytes; a Group is what one half of a panel needs.
template <bool kFused>
struct Affine4 {
  static constexpr int kStep = 8;
  static constexpr int kHalfBytes = kLanes * 4;
  static constexpr bool kAffine = true;
  struct Group {
    Scaled low, high;
  };
  static Group group(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
    const std::int64_t at = group_at(w, panel, g, h);
    const VF s = load_scale(w, at), zero = load_zero(w, at);
    return {scaled<kFused>(s, zero, 0x1p7f), scaled<kFused>(s, zero, 0x1p11f)};
  }
  template <int J>
  static VF weight(const std::uint8_t* p, const Group& c) {
    if constexpr (J < 4) {  // low nibble of byte J, to bits 16 .. 19
      return apply<kFused>(vand_or(vload_i(p + J - 2), vset_i(0x000F0000), vset_i(kOneBits)), c.low);
    } else {  // high nibble of byte J - 4, to bits 12 .. 15
      return apply<kFused>(vand_or(vload_i(p + J - 5), vset_i(0x0000F000), vset_i(kOneBits)), c.high);
    }
  }
};

template <bool kFused>
struct Affine8 {
  static constexpr int kStep = 4;
  static constexpr int kHalfBytes = kLanes * 4;
  static constexpr bool kAffine = true;
  using Group = Scaled;
  static Group group(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
    const std::int64_t at = group_at(w, panel, g, h);
    return scaled<kFused>(load_scale(w, at), load_zero(w, at), 0x1p15f);
  }
  template <int J>
  static VF weight(const std::uint8_t* p, const Group& c) {  // byte J, to bits 8 .. 15
    return apply<kFused>(vand_or(vload_i(p + J - 1), vset_i(0x0000FF00), vset_i(kOneBits)), c);
  }
};

struct NoGroup {};

template <int kBytes>
struct Plain {
  static constexpr int kStep = 1;
  static constexpr int kHalfBytes = kLanes * kBytes;
  static constexpr bool kAffine = false;
  using Group = NoGroup;
  static Group group(const WeightView&, std::int64_t, std::int64_t, int) { return {}; }
};
struct PlainF32 : Plain<4> {
  template <int J>
  static VF weight(const std::uint8_t* p, const Group&) { return vload(reinterpret_cast<const float*>(p)); }
};
struct PlainBf16 : Plain<2> {
  template <int J>
  static VF weight(const std::uint8_t* p, const Group&) { return vload_bf16(p); }
};
struct PlainF16 : Plain<2> {
  template <int J>
  static VF weight(const std::uint8_t* p, const Group&) { return vload_f16(p); }
};

/// Symmetric nibbles whose scales 16 bits hold, added to an anchor: one rounding, because (code - zero) * s is exact.
struct Delta4 {
#ifdef __AVX512F__  // a code's value is looked up: its four bits are the lowest of a lane
  struct Group {
    VF s, values;
  };
  static Group group(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
    return {load_scale(w, group_at(w, panel, g, h)), vto_float(vsub_i(vlane_i(), vset_i(w.zero_point)))};
  }
  template <int J>
  static VF on(VF anchor, const std::uint8_t* p, const Group& c) {
    const VI word = vload_i(p + J % 4);
    if constexpr (J < 4) {
      return vfma(vlookup16(word, c.values), c.s, anchor);
    } else {
      return vfma(vlookup16(vsrl32<4>(word), c.values), c.s, anchor);
    }
  }
#else
  using D = Affine4<true>;
  using Group = D::Group;
  static Group group(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
    return D::group(w, panel, g, h);
  }
  template <int J>
  static VF on(VF anchor, const std::uint8_t* p, const Group& c) {
    return vadd(anchor, D::weight<J>(p, c));
  }
#endif
};

/// Deltas on an anchor that policy A reads; both step along k together.
template <class A>
struct Anchored {
  static constexpr int kStep = Affine4<true>::kStep;
  static constexpr int kHalfBytes = Affine4<true>::kHalfBytes;
  static constexpr bool kAffine = true;
  struct Group {
    Delta4::Group delta;
    typename A::Group anchor;
    VF scale;
    const std::uint8_t* deltas;  // where this half of the panel begins
    const std::uint8_t* anchors;
  };
  static Group group(const WeightView& w, std::int64_t panel, std::int64_t g, int h) {
    const WeightView& a = *w.anchor;
    return {Delta4::group(w, panel, g, h), A::group(a, panel, g, h), vload(w.row_scale + panel * kPanel + h * kLanes),
            w.codes + panel * w.panel_bytes + h * kHalfBytes,
            a.codes + (panel - a.first_panel) * a.panel_bytes + h * A::kHalfBytes};
  }
  template <int J>
  static VF weight(const std::uint8_t* p, const Group& c) {
    constexpr std::int64_t kBlock = A::kHalfBytes * kHalves;
    constexpr std::int64_t kRatio = kStep / A::kStep * kBlock / (kHalfBytes * kHalves);
    const std::uint8_t* a = c.anchors + (p - c.deltas) * kRatio + J / A::kStep * kBlock;
    const VF anchor = A::template weight<J % A::kStep>(a, c.anchor);
    return vmul(Delta4::on<J>(anchor, p, c.delta), c.scale);
  }
};

/// Calls fn.template operator()<D>() for the policy that reads w.
template <class F>
inline void with_policy(const WeightView& w, F&& fn) {
  if (w.anchor != nullptr) {
    switch (w.anchor->format) {
      case WeightFormat::f32: return fn.template operator()<Anchored<PlainF32>>();
      case WeightFormat::f16: return fn.template operator()<Anchored<PlainF16>>();
      case WeightFormat::bf16: return fn.template operator()<Anchored<PlainBf16>>();
      default: return fn.template operator()<Anchored<Affine8<false>>>();
    }
  }
  switch (w.format) {
    case WeightFormat::f32: return fn.template operator()<PlainF32>();
    case WeightFormat::bf16: return fn.template operator()<PlainBf16>();
    case WeightFormat::f16: return fn.template operator()<PlainF16>();
    case WeightFormat::affine4:
      return w.scale_type == ScaleType::f32 ? fn.template operator()<Affine4<false>>()
                                            : fn.template operator()<Affine4<true>>();
    case WeightFormat::affine8:
      return w.scale_type == ScaleType::bf16 ? fn.template operator()<Affine8<true>>()
                                             : fn.template operator()<Affine8<false>>();
  }
}

/// Calls fn.template operator()<R>() for rows == R, 1 <= rows <= kMax.
template <int kMax, class F>
inline void with_rows(std::int64_t rows, F&& fn) {
  if constexpr (kMax > 1) {
    if (rows < kMax) {
      return with_rows<kMax - 1>(rows, fn);
    }
  }
  fn.template operator()<kMax>();
}

#define KEDGE_INLINE __attribute__((always_inline))

/// Calls fn.template operator()<0 .. kCount - 1>(). Arrays of accumulators are indexed only through this: with
/// constant indices from the start GCC keeps them in registers, with loops it does not always.
template <int kCount, int kAt = 0, class F>
inline KEDGE_INLINE void unroll(F&& fn) {
  if constexpr (kAt < kCount) {
    fn.template operator()<kAt>();
    unroll<kCount, kAt + 1>(fn);
  }
}

/// Stores `vectors` (16 per panel) of one row; outputs at and beyond `n` are dropped.
inline void store_outputs(float* y, const float* values, std::int64_t column, std::int64_t n, int panels) {
  const std::int64_t count = n - column < panels * kPanel ? n - column : panels * kPanel;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    vstore(y + i, vload(values + i));
  }
  for (; i < count; ++i) {
    y[i] = values[i];
  }
}

}  // namespace
}  // namespace kedge
