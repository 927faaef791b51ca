// Sixteen fp32 lanes, the same bits on every instruction set.
//
// Three backends, chosen by the flags of the including file: one __m512, two __m256, or float[16] with fused
// multiply-add by __builtin_fmaf. Everything is in an anonymous namespace and always inlined, so that one source can
// be compiled once per ISA without two versions of a function meeting at link time. No std headers beyond <cstdint>.
//
// min/max return their second operand when either is NaN (x86's rule).
// hsum adds lane l to lane l + 8, then + 4, + 2, + 1: the fixed tree of the numerics contract.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KEDGE_VEC_AVX512 1
#define KEDGE_VEC_AVX2 0
#elif defined(__AVX2__) && defined(__FMA__)
#define KEDGE_VEC_AVX512 0
#define KEDGE_VEC_AVX2 1
#else
#define KEDGE_VEC_AVX512 0
#define KEDGE_VEC_AVX2 0
#endif

#if KEDGE_VEC_AVX512 || KEDGE_VEC_AVX2
// GCC 12's own headers use undefined registers on purpose and warn about it (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define KEDGE_VEC inline __attribute__((always_inline, nothrow))

namespace kedge {
namespace {

constexpr int kLanes = 16;

#if KEDGE_VEC_AVX512

struct V16 {
  __m512 v;
};

KEDGE_VEC V16 set1(float x) { return {_mm512_set1_ps(x)}; }
KEDGE_VEC V16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
KEDGE_VEC void store(float* p, V16 a) { _mm512_storeu_ps(p, a.v); }
KEDGE_VEC __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
/// The first n (0 <= n <= 16) lanes from memory, the others `fill`; nothing behind p + n is read.
KEDGE_VEC V16 load_tail(const float* p, std::int64_t n, float fill) {
  return {_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(n), p)};
}
KEDGE_VEC void store_tail(float* p, std::int64_t n, V16 a) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
KEDGE_VEC V16 add(V16 a, V16 b) { return {_mm512_add_ps(a.v, b.v)}; }
KEDGE_VEC V16 sub(V16 a, V16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
KEDGE_VEC V16 mul(V16 a, V16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
KEDGE_VEC V16 div(V16 a, V16 b) { return {_mm512_div_ps(a.v, b.v)}; }
KEDGE_VEC V16 sqrt(V16 a) { return {_mm512_sqrt_ps(a.v)}; }
/// a * b + c, rounded once.
KEDGE_VEC V16 fma(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
KEDGE_VEC V16 min(V16 a, V16 b) { return {_mm512_min_ps(a.v, b.v)}; }
KEDGE_VEC V16 max(V16 a, V16 b) { return {_mm512_max_ps(a.v, b.v)}; }
KEDGE_VEC V16 abs(V16 a) { return {_mm512_abs_ps(a.v)}; }
KEDGE_VEC V16 neg(V16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
/// Lanes of a where x < y, else of b.
KEDGE_VEC V16 select_less(V16 x, V16 y, V16 a, V16 b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
}
/// p * 2^n for integral n, rounded once.
KEDGE_VEC V16 scale_by_power(V16 p, V16 n, V16 /*shifted*/) { return {_mm512_scalef_ps(p.v, n.v)}; }

KEDGE_VEC float hsum(V16 a) {
  const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
KEDGE_VEC float hmax(V16 a) {
  const __m256 y = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

#elif KEDGE_VEC_AVX2

struct V16 {
  __m256 lo, hi;
};

KEDGE_VEC V16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
KEDGE_VEC V16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
KEDGE_VEC void store(float* p, V16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
KEDGE_VEC __m256i first_lanes(std::int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
/// The first n (0 <= n <= 16) lanes from memory, the others `fill`; nothing behind p + n is read.
KEDGE_VEC V16 load_tail(const float* p, std::int64_t n, float fill) {
  const __m256 rest = _mm256_set1_ps(fill);
  const __m256i low = first_lanes(n), high = first_lanes(n - 8);
  return {_mm256_blendv_ps(rest, _mm256_maskload_ps(p, low), _mm256_castsi256_ps(low)),
          _mm256_blendv_ps(rest, _mm256_maskload_ps(p + 8, high), _mm256_castsi256_ps(high))};
}
KEDGE_VEC void store_tail(float* p, std::int64_t n, V16 a) {
  _mm256_maskstore_ps(p, first_lanes(n), a.lo);
  _mm256_maskstore_ps(p + 8, first_lanes(n - 8), a.hi);
}
KEDGE_VEC V16 add(V16 a, V16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 sub(V16 a, V16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 mul(V16 a, V16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 div(V16 a, V16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 sqrt(V16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
/// a * b + c, rounded once.
KEDGE_VEC V16 fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
KEDGE_VEC V16 min(V16 a, V16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 max(V16 a, V16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
KEDGE_VEC V16 abs(V16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
KEDGE_VEC V16 neg(V16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
/// Lanes of a where x < y, else of b.
KEDGE_VEC V16 select_less(V16 x, V16 y, V16 a, V16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
}
KEDGE_VEC __m256 scale_by_power_half(__m256 p, __m256 shifted) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
  const __m256i first = _mm256_srai_epi32(n, 1), second = _mm256_sub_epi32(n, first);
  const __m256i one = _mm256_set1_epi32(0x3f800000);
  const __m256 scaled = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(first, 23), one)));
  return _mm256_mul_ps(scaled, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(second, 23), one)));
}
/// p * 2^n for integral n in [-250, 250] and p near 1, rounded once; shifted = n + 1.5 * 2^23, whose low bits are n.
KEDGE_VEC V16 scale_by_power(V16 p, V16 /*n*/, V16 shifted) {
  return {scale_by_power_half(p.lo, shifted.lo), scale_by_power_half(p.hi, shifted.hi)};
}

KEDGE_VEC float hsum(V16 a) {
  const __m256 y = _mm256_add_ps(a.lo, a.hi);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
KEDGE_VEC float hmax(V16 a) {
  const __m256 y = _mm256_max_ps(a.lo, a.hi);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

#else

struct V16 {
  float v[kLanes];
};

template <class F>
KEDGE_VEC V16 each_lane(F&& f) {
  V16 r;
  for (int l = 0; l < kLanes; ++l) r.v[l] = f(l);
  return r;
}

KEDGE_VEC V16 set1(float x) {
  return each_lane([=](int) { return x; });
}
KEDGE_VEC V16 load(const float* p) {
  return each_lane([=](int l) { return p[l]; });
}
KEDGE_VEC void store(float* p, V16 a) {
  for (int l = 0; l < kLanes; ++l) p[l] = a.v[l];
}
/// The first n (0 <= n <= 16) lanes from memory, the others `fill`; nothing behind p + n is read.
KEDGE_VEC V16 load_tail(const float* p, std::int64_t n, float fill) {
  return each_lane([=](int l) { return l < n ? p[l] : fill; });
}
KEDGE_VEC void store_tail(float* p, std::int64_t n, V16 a) {
  for (int l = 0; l < n; ++l) p[l] = a.v[l];
}
KEDGE_VEC V16 add(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] + b.v[l]; });
}
KEDGE_VEC V16 sub(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] - b.v[l]; });
}
KEDGE_VEC V16 mul(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] * b.v[l]; });
}
KEDGE_VEC V16 div(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] / b.v[l]; });
}
KEDGE_VEC V16 sqrt(V16 a) {
  return each_lane([&](int l) { return __builtin_sqrtf(a.v[l]); });
}
/// a * b + c, rounded once.
KEDGE_VEC V16 fma(V16 a, V16 b, V16 c) {
  return each_lane([&](int l) { return __builtin_fmaf(a.v[l], b.v[l], c.v[l]); });
}
KEDGE_VEC V16 min(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] < b.v[l] ? a.v[l] : b.v[l]; });
}
KEDGE_VEC V16 max(V16 a, V16 b) {
  return each_lane([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; });
}
KEDGE_VEC V16 abs(V16 a) {
  return each_lane([&](int l) { return __builtin_fabsf(a.v[l]); });
}
KEDGE_VEC V16 neg(V16 a) {
  return each_lane([&](int l) { return -a.v[l]; });
}
/// Lanes of a where x < y, else of b.
KEDGE_VEC V16 select_less(V16 x, V16 y, V16 a, V16 b) {
  return each_lane([&](int l) { return x.v[l] < y.v[l] ? a.v[l] : b.v[l]; });
}
/// p * 2^n for integral n in [-250, 250] and p near 1, rounded once; shifted = n + 1.5 * 2^23, whose low bits are n.
KEDGE_VEC V16 scale_by_power(V16 p, V16 /*n*/, V16 shifted) {
  return each_lane([&](int l) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &shifted.v[l], 4);
    const std::int32_t n = static_cast<std::int32_t>(bits - 0x4b400000u);
    const std::int32_t first = n >> 1, second = n - first;
    const std::uint32_t a = (static_cast<std::uint32_t>(first) << 23) + 0x3f800000u;
    const std::uint32_t b = (static_cast<std::uint32_t>(second) << 23) + 0x3f800000u;
    float fa, fb;
    __builtin_memcpy(&fa, &a, 4);
    __builtin_memcpy(&fb, &b, 4);
    return p.v[l] * fa * fb;
  });
}

KEDGE_VEC float hsum(V16 a) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int l = 0; l < step; ++l) a.v[l] += a.v[l + step];
  }
  return a.v[0];
}
KEDGE_VEC float hmax(V16 a) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int l = 0; l < step; ++l) a.v[l] = a.v[l] > a.v[l + step] ? a.v[l] : a.v[l + step];
  }
  return a.v[0];
}

#endif

/// e^x, at most 1 ulp off. -inf and x < -103.98 give 0, x > 88.73 gives inf, NaN stays NaN; subnormals are rounded
/// once. x = n ln2 + r with |r| <= ln2 / 2; e^r = 1 + r + r^2 q(r), q fitted (minimax, relative error 3.1e-9).
KEDGE_VEC V16 exp(V16 x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0.693145752f, kLn2Low = 1.42860677e-6f;
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  x = max(set1(-105.0f), min(set1(89.0f), x));
  const V16 shifted = fma(x, set1(kLog2e), set1(kShift));
  const V16 n = sub(shifted, set1(kShift));
  V16 r = fma(n, set1(-kLn2High), x);
  r = fma(n, set1(-kLn2Low), r);
  V16 q = set1(0x1.6a23d0p-10f);
  q = fma(q, r, set1(0x1.123a20p-7f));
  q = fma(q, r, set1(0x1.5558f2p-5f));
  q = fma(q, r, set1(0x1.555492p-3f));
  q = fma(q, r, set1(0x1.fffffcp-2f));
  const V16 p = add(fma(q, mul(r, r), r), set1(1.0f));
  return scale_by_power(p, n, shifted);
}

/// 1 / (1 + e^-x).
KEDGE_VEC V16 logistic(V16 x) { return div(set1(1.0f), add(set1(1.0f), exp(neg(x)))); }

/// Half of erfc(z) for z >= 0, relative error below 1e-6 while it is a normal number.
/// erfc(z) = t P(t) e^(-z^2), t = 1 / (1 + 0.4 z) (the form of Abramowitz and Stegun 7.1.26, P fitted anew).
KEDGE_VEC V16 half_erfc(V16 z) {
  z = min(set1(20.0f), z);  // 0 from about 9 on; z^2 stays finite, and in this order NaN stays
  const V16 t = div(set1(1.0f), fma(z, set1(0.4f), set1(1.0f)));
  V16 p = set1(0.04125293716788292f);
  p = fma(p, t, set1(-0.14031894505023956f));
  p = fma(p, t, set1(0.08398712426424026f));
  p = fma(p, t, set1(0.08796405047178268f));
  p = fma(p, t, set1(0.07975701242685318f));
  p = fma(p, t, set1(0.19339285790920258f));
  p = fma(p, t, set1(0.20188771188259125f));
  p = fma(p, t, set1(0.2264430969953537f));
  p = fma(p, t, set1(0.22563423216342926f));
  // z^2 = high + low exactly: without low the exponential loses z^2 / 2 ulps.
  const V16 high = mul(z, z);
  const V16 low = fma(z, z, neg(high));
  const V16 e = exp(neg(high));
  return mul(set1(0.5f), mul(mul(t, p), fma(e, neg(low), e)));
}

}  // namespace
}  // namespace kedge
