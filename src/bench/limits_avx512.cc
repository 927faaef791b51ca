#include "bench/limits_avx512_impl.h"

namespace kedge {
namespace {

std::int32_t int8(std::int64_t rounds) {
  __m512i a[8];
  __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-5);
  const __m512i ones = _mm512_set1_epi16(1);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) a[k] = _mm512_set1_epi32(k);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      asm volatile("" : "+v"(x), "+v"(y));  // the product must not leave the loop
      a[k] = _mm512_add_epi32(a[k], _mm512_madd_epi16(_mm512_maddubs_epi16(x, y), ones));
    }
  }
  __m512i sum = a[0];
#pragma GCC unroll 8
  for (int k = 1; k < 8; ++k) sum = _mm512_add_epi32(sum, a[k]);
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(sum));
}

}  // namespace

const LimitKernels limits_avx512 = {read_all, fp32, kFp32PerRound, int8, 8.0 * 128, "vpmaddubsw + vpmaddwd zmm"};

}  // namespace kedge
