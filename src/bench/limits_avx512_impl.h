// What limits_avx512.cc and limits_avx512vnni.cc share; anonymous, once per file.
#include "bench/limit_kernels.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

std::uint64_t read_all(const unsigned char* data, std::int64_t bytes) {
  __m512i sums[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) sums[k] = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < bytes; i += 256) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + 4096 + 64 * k), _MM_HINT_T0);
      sums[k] = _mm512_xor_si512(sums[k], _mm512_load_si512(data + i + 64 * k));
    }
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, all);
  std::uint64_t result = 0;
  for (std::uint64_t word : words) result ^= word;
  return result;
}

float fp32(std::int64_t rounds) {
  V16 a[16];
  const V16 m = set1(0.999f);
#pragma GCC unroll 16
  for (int k = 0; k < 16; ++k) a[k] = set1(static_cast<float>(k));
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int k = 0; k < 16; ++k) a[k] = fma(a[k], m, m);
  }
  V16 sum = a[0];
#pragma GCC unroll 16
  for (int k = 1; k < 16; ++k) sum = add(sum, a[k]);
  return hsum(sum);
}

constexpr double kFp32PerRound = 16.0 * 32;

}  // namespace
}  // namespace kedge
