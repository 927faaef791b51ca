// int8 dot products without VNNI: u8 x s8 pairs into 16 bits, 16-bit pairs into 32 bits. Exact, never saturating:
//   affine4  15 * 127 * 2 = 3810 per pair product, at most 8 of them are added in 16 bits: 30480 < 32768
//   affine8  255 * 127 * 2 would saturate; codes are widened to 16 bits instead (x is packed as s16 pairs)
#pragma once

#include "kernels/gemm/int8_impl.h"

namespace kedge {
namespace {

inline std::int32_t word_at(const void* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, 4);
  return word;
}

struct Madd4 {
  using Element = std::int8_t;
  template <int R, int P>
  static inline KEDGE_INLINE void dot(const std::uint8_t* codes, std::int64_t stride, const std::int8_t* x,
                                      std::int64_t k, std::int64_t end, VI (&isum)[R * P * kHalves]) {
    constexpr int V = P * kHalves;
    const VI mask = vset_i(0x0F0F0F0F), ones = vset_i(0x00010001);
    while (k < end) {
      VI pairs[R * V];
      unroll<R * V>([&]<int I>() KEDGE_INLINE { pairs[I] = vset_i(0); });
      const std::int64_t stop = k + 32 < end ? k + 32 : end;
      for (; k < stop; k += 8) {
        const std::uint8_t* block = codes + k / 8 * 64;
        prefetch_panels<P>(block, stride);
        const std::int8_t* xk = x + k * R;
        VI low[V], high[V];
        unroll<V>([&]<int v>() KEDGE_INLINE {
          const VI c = vload_i(block + v / kHalves * stride + v % kHalves * 32);
          low[v] = vand_i(c, mask);
          high[v] = vand_i(vsrl16<4>(c), mask);
        });
        unroll<R>([&]<int r>() KEDGE_INLINE {
          const VI q = vset_i(word_at(xk + r * 4));
          unroll<V>([&]<int v>() KEDGE_INLINE { pairs[r * V + v] = vadd_16(pairs[r * V + v], vmaddubs(low[v], q)); });
        });
        unroll<R>([&]<int r>() KEDGE_INLINE {
          const VI q = vset_i(word_at(xk + (R + r) * 4));
          unroll<V>([&]<int v>() KEDGE_INLINE { pairs[r * V + v] = vadd_16(pairs[r * V + v], vmaddubs(high[v], q)); });
        });
      }
      unroll<R * V>([&]<int I>() KEDGE_INLINE { isum[I] = vadd_i(isum[I], vmadd16(pairs[I], ones)); });
    }
  }
};

struct Madd8 {
  using Element = std::int16_t;
  template <int R, int P>
  static inline KEDGE_INLINE void dot(const std::uint8_t* codes, std::int64_t stride, const std::int16_t* x,
                                      std::int64_t k, std::int64_t end, VI (&isum)[R * P * kHalves]) {
    constexpr int V = P * kHalves;
    for (; k < end; k += 4) {
      const std::uint8_t* block = codes + k / 4 * 64;
      prefetch_panels<P>(block, stride);
      const std::int16_t* xk = x + k * R;
      VI even[V], odd[V];
      unroll<V>([&]<int v>() KEDGE_INLINE {
        const VI c = vload_i(block + v / kHalves * stride + v % kHalves * 32);
        even[v] = vand_i(c, vset_i(0x00FF00FF));
        odd[v] = vsrl16<8>(c);
      });
      unroll<R>([&]<int r>() KEDGE_INLINE {
        const VI q = vset_i(word_at(xk + r * 4)), next = vset_i(word_at(xk + r * 4 + 2));
        unroll<V>([&]<int v>() KEDGE_INLINE {
          isum[r * V + v] = vadd_i(isum[r * V + v], vmadd16(even[v], q));
          isum[r * V + v] = vadd_i(isum[r * V + v], vmadd16(odd[v], next));
        });
      });
    }
  }
};

}  // namespace
}  // namespace kedge
