// Vector primitives of the gemm kernels, AVX-512 (F, BW, DQ, VL). Included only by *_avx512*.cc.
#pragma once

// GCC 12 reports its own _mm512_undefined_*() as uninitialised.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <cstdint>

namespace kedge {
namespace {

using VF = __m512;
using VI = __m512i;
constexpr int kLanes = 16;
constexpr int kHalves = 1;      // vectors per panel of 16 outputs
constexpr int kTilePanels = 2;  // panels of a prefill tile
constexpr int kRowTile = 12;    // rows of a prefill tile: 24 accumulators of 32 registers

/// Panels of a decode tile: enough chains to hide the FMA's latency, few enough for the registers.
constexpr int decode_panel_count(int rows) { return rows == 1 ? 4 : 2; }

inline VF vzero() { return _mm512_setzero_ps(); }
inline VF vset(float x) { return _mm512_set1_ps(x); }
inline VF vload(const float* p) { return _mm512_loadu_ps(p); }
inline void vstore(float* p, VF x) { _mm512_storeu_ps(p, x); }
inline VF vfma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
inline VF vmul(VF a, VF b) { return _mm512_mul_ps(a, b); }
inline VF vadd(VF a, VF b) { return _mm512_add_ps(a, b); }
inline VF vsub(VF a, VF b) { return _mm512_sub_ps(a, b); }
inline VI vload_i(const void* p) { return _mm512_loadu_si512(p); }
inline void vstore_i(void* p, VI x) { _mm512_storeu_si512(p, x); }
inline VI vset_i(std::int32_t x) { return _mm512_set1_epi32(x); }
inline VI vadd_i(VI a, VI b) { return _mm512_add_epi32(a, b); }
inline VI vmul_i(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
inline VI vmax_i(VI a, VI b) { return _mm512_max_epi32(a, b); }
inline VI vand_i(VI a, VI b) { return _mm512_and_si512(a, b); }
template <int N>
inline VI vsrl16(VI a) { return _mm512_srli_epi16(a, N); }
template <int N>
inline VI vsra16(VI a) { return _mm512_srai_epi16(a, N); }
template <int N>
inline VI vsll16(VI a) { return _mm512_slli_epi16(a, N); }
inline VI vadd_16(VI a, VI b) { return _mm512_add_epi16(a, b); }
inline VI vxor_i(VI a, VI b) { return _mm512_xor_si512(a, b); }
inline VI vmaddubs(VI u8, VI s8) { return _mm512_maddubs_epi16(u8, s8); }
inline VI vmadd16(VI a, VI b) { return _mm512_madd_epi16(a, b); }
inline VF vto_float(VI a) { return _mm512_cvtepi32_ps(a); }
inline VF vmin_f(VF a, VF b) { return _mm512_min_ps(a, b); }
inline VF vmax_f(VF a, VF b) { return _mm512_max_ps(a, b); }
inline VI vround(VF a) { return _mm512_cvtps_epi32(a); }
inline VI vbits(VF a) { return _mm512_castps_si512(a); }
/// (x & mask) | one, as floats.
inline VF vand_or(VI x, VI mask, VI one) { return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(x, mask, one, 0xEA)); }
/// table[x & 15] of each lane.
inline VF vlookup16(VI x, VF table) { return _mm512_permutexvar_ps(x, table); }
inline VI vlane_i() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
inline VI vsub_i(VI a, VI b) { return _mm512_sub_epi32(a, b); }
template <int N>
inline VI vsrl32(VI a) { return _mm512_srli_epi32(a, N); }
inline VF vload_bf16(const void* p) {
  const __m256i x = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
inline VF vload_f16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
inline VI vload_u8(const std::uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void vstore_s8(std::int8_t* p, VI x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}
inline std::int32_t vreduce_max(VI x) { return _mm512_reduce_max_epi32(x); }
inline std::int32_t vreduce_add(VI x) { return _mm512_reduce_add_epi32(x); }

}  // namespace
}  // namespace kedge
