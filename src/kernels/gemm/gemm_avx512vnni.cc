// int8 products with vpdpbusd: unsigned codes times signed rows, four k per 32-bit lane.
#include "kernels/gemm/simd_avx512.h"

#include "kernels/gemm/int8_impl.h"
#include "kernels/gemm/rows.h"

namespace kedge {
namespace {

using gemm_rows::kInt8DecodeRows;
using gemm_rows::kTileRowsVnni;

inline VI word(const std::int8_t* p) {
  std::int32_t value;
  __builtin_memcpy(&value, p, 4);
  return _mm512_set1_epi32(value);
}

struct Dot4 {
  using Element = std::int8_t;
  template <int R, int P>
  static inline KEDGE_INLINE void dot(const std::uint8_t* codes, std::int64_t stride, const std::int8_t* x,
                                      std::int64_t k, std::int64_t end, VI (&isum)[R * P]) {
    const VI mask = _mm512_set1_epi32(0x0F0F0F0F);
    for (; k < end; k += 8) {
      const std::uint8_t* block = codes + k / 8 * 64;
      prefetch_panels<P>(block, stride);
      const std::int8_t* xk = x + k * R;
      VI low[P], high[P];
      unroll<P>([&]<int p>() KEDGE_INLINE {
        const VI c = vload_i(block + p * stride);
        low[p] = vand_i(c, mask);
        high[p] = vand_i(vsrl16<4>(c), mask);
      });
      unroll<R>([&]<int r>() KEDGE_INLINE {
        const VI q = word(xk + r * 4);
        unroll<P>([&]<int p>() KEDGE_INLINE { isum[r * P + p] = _mm512_dpbusd_epi32(isum[r * P + p], low[p], q); });
      });
      unroll<R>([&]<int r>() KEDGE_INLINE {
        const VI q = word(xk + (R + r) * 4);
        unroll<P>([&]<int p>() KEDGE_INLINE { isum[r * P + p] = _mm512_dpbusd_epi32(isum[r * P + p], high[p], q); });
      });
    }
  }
};

struct Dot8 {
  using Element = std::int8_t;
  template <int R, int P>
  static inline KEDGE_INLINE void dot(const std::uint8_t* codes, std::int64_t stride, const std::int8_t* x,
                                      std::int64_t k, std::int64_t end, VI (&isum)[R * P]) {
    for (; k < end; k += 4) {
      const std::uint8_t* block = codes + k / 4 * 64;
      prefetch_panels<P>(block, stride);
      const std::int8_t* xk = x + k * R;
      VI c[P];
      unroll<P>([&]<int p>() KEDGE_INLINE { c[p] = vload_i(block + p * stride); });
      unroll<R>([&]<int r>() KEDGE_INLINE {
        const VI q = word(xk + r * 4);
        unroll<P>([&]<int p>() KEDGE_INLINE { isum[r * P + p] = _mm512_dpbusd_epi32(isum[r * P + p], c[p], q); });
      });
    }
  }
};

template <int P, int kMaxRows>
inline void run_int8(const GemmTask& t) noexcept {
  if (t.w.format == WeightFormat::affine4) {
    int8_panels<Dot4, P, 2, kMaxRows>(t);
  } else {
    int8_panels<Dot8, P, 2, kMaxRows>(t);
  }
}

}  // namespace

namespace gemm_rows {

void run_int8_decode_avx512vnni(const GemmTask& t) noexcept { run_int8<4, kInt8DecodeRows>(t); }
void run_int8_tiles_avx512vnni(const GemmTask& t) noexcept { run_int8<2, kTileRowsVnni>(t); }

}  // namespace gemm_rows
}  // namespace kedge
