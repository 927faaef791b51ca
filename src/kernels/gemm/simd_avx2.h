// Vector primitives of the gemm kernels, AVX2 with FMA and F16C. Included only by *_avx2.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kedge {
namespace {

using VF = __m256;
using VI = __m256i;
constexpr int kLanes = 8;
constexpr int kHalves = 2;      // vectors per panel of 16 outputs
constexpr int kTilePanels = 1;  // panels of a prefill tile
constexpr int kRowTile = 6;     // rows of a prefill tile: 12 accumulators of 16 registers

/// Panels of a decode tile: enough chains to hide the FMA's latency, few enough for the registers.
constexpr int decode_panel_count(int rows) { return rows <= 2 ? 2 : 1; }

inline VF vzero() { return _mm256_setzero_ps(); }
inline VF vset(float x) { return _mm256_set1_ps(x); }
inline VF vload(const float* p) { return _mm256_loadu_ps(p); }
inline void vstore(float* p, VF x) { _mm256_storeu_ps(p, x); }
inline VF vfma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
inline VF vmul(VF a, VF b) { return _mm256_mul_ps(a, b); }
inline VF vadd(VF a, VF b) { return _mm256_add_ps(a, b); }
inline VF vsub(VF a, VF b) { return _mm256_sub_ps(a, b); }
inline VI vload_i(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void vstore_i(void* p, VI x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
inline VI vset_i(std::int32_t x) { return _mm256_set1_epi32(x); }
inline VI vadd_i(VI a, VI b) { return _mm256_add_epi32(a, b); }
inline VI vmul_i(VI a, VI b) { return _mm256_mullo_epi32(a, b); }
inline VI vmax_i(VI a, VI b) { return _mm256_max_epi32(a, b); }
inline VI vand_i(VI a, VI b) { return _mm256_and_si256(a, b); }
template <int N>
inline VI vsrl16(VI a) { return _mm256_srli_epi16(a, N); }
template <int N>
inline VI vsra16(VI a) { return _mm256_srai_epi16(a, N); }
template <int N>
inline VI vsll16(VI a) { return _mm256_slli_epi16(a, N); }
inline VI vadd_16(VI a, VI b) { return _mm256_add_epi16(a, b); }
inline VI vxor_i(VI a, VI b) { return _mm256_xor_si256(a, b); }
inline VI vmaddubs(VI u8, VI s8) { return _mm256_maddubs_epi16(u8, s8); }
inline VI vmadd16(VI a, VI b) { return _mm256_madd_epi16(a, b); }
inline VF vto_float(VI a) { return _mm256_cvtepi32_ps(a); }
inline VF vmin_f(VF a, VF b) { return _mm256_min_ps(a, b); }
inline VF vmax_f(VF a, VF b) { return _mm256_max_ps(a, b); }
inline VI vround(VF a) { return _mm256_cvtps_epi32(a); }
inline VI vbits(VF a) { return _mm256_castps_si256(a); }
/// (x & mask) | one, as floats.
inline VF vand_or(VI x, VI mask, VI one) {
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(x, mask), one));
}
inline VF vload_bf16(const void* p) {
  const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline VF vload_f16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline VI vload_u8(const std::uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline void vstore_s8(std::int8_t* p, VI x) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline std::int32_t vreduce_max(VI x) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}
inline std::int32_t vreduce_add(VI x) {
  __m128i m = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}

}  // namespace
}  // namespace kedge
