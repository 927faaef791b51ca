#include "bench/limits_avx512_impl.h"

namespace kedge {
namespace {

std::int32_t int8(std::int64_t rounds) {
  __m512i a[16];
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-5);
#pragma GCC unroll 16
  for (int k = 0; k < 16; ++k) a[k] = _mm512_set1_epi32(k);  // equal chains would be merged
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int k = 0; k < 16; ++k) a[k] = _mm512_dpbusd_epi32(a[k], x, y);
  }
  __m512i sum = a[0];
#pragma GCC unroll 16
  for (int k = 1; k < 16; ++k) sum = _mm512_add_epi32(sum, a[k]);
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(sum));
}

}  // namespace

const LimitKernels limits_avx512vnni = {read_all, fp32, kFp32PerRound, int8, 16.0 * 128, "vpdpbusd zmm"};

}  // namespace kedge
