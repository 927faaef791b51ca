#include <immintrin.h>

#include "bench/limit_kernels.h"

namespace kedge {
namespace {

std::uint64_t read_all(const unsigned char* data, std::int64_t bytes) {
  __m256i sums[4] = {};
  for (std::int64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 2048), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 2112), _MM_HINT_T0);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      sums[k] = _mm256_xor_si256(sums[k], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i) + k));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  alignas(32) std::uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), all);
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

float fp32(std::int64_t rounds) {
  __m256 a[12];
  const __m256 m = _mm256_set1_ps(0.999f);
#pragma GCC unroll 12
  for (int k = 0; k < 12; ++k) a[k] = _mm256_set1_ps(static_cast<float>(k));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) a[k] = _mm256_fmadd_ps(a[k], m, m);
  }
  __m256 sum = a[0];
#pragma GCC unroll 12
  for (int k = 1; k < 12; ++k) sum = _mm256_add_ps(sum, a[k]);
  return _mm256_cvtss_f32(sum);
}

std::int32_t int8(std::int64_t rounds) {
  __m256i a[8];
  __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(-5);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) a[k] = _mm256_set1_epi32(k);
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      asm volatile("" : "+x"(x), "+x"(y));  // the product must not leave the loop
      a[k] = _mm256_add_epi32(a[k], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
    }
  }
  __m256i sum = a[0];
#pragma GCC unroll 8
  for (int k = 1; k < 8; ++k) sum = _mm256_add_epi32(sum, a[k]);
  return _mm256_extract_epi32(sum, 0);
}

}  // namespace

const LimitKernels limits_avx2 = {read_all, fp32, 12.0 * 16, int8, 8.0 * 64, "vpmaddubsw + vpmaddwd ymm"};

}  // namespace kedge
