#include "kernels/gemm/simd_avx2.h"

#include "kernels/gemm/fp32_impl.h"
#include "kernels/gemm/int8_madd_impl.h"
#include "kernels/gemm/pack_impl.h"
#include "kernels/gemm/rows.h"

namespace kedge::gemm_rows {

void pack_f32_avx2(const PackTask& t) noexcept { pack_f32(t); }
void pack_s8_avx2(const PackTask& t) noexcept { pack_s8(t); }
void pack_s16_avx2(const PackTask& t) noexcept { pack_s16(t); }
void run_fp32_decode_avx2(const GemmTask& t) noexcept { run_decode<kDecodeRowsAvx2>(t); }
void run_fp32_tiles_avx2(const GemmTask& t) noexcept { run_tiles(t); }
void dequantize_panels_avx2(const WeightView& w, std::int64_t begin, std::int64_t end, float* out) noexcept {
  dequantize_panels(w, begin, end, out);
}
void run_affine4_int8_avx2(const GemmTask& t) noexcept { int8_panels<Madd4, kTilePanels, kTilePanels, kTileRowsAvx2>(t); }
void run_affine8_int8_avx2(const GemmTask& t) noexcept { int8_panels<Madd8, kTilePanels, kTilePanels, kMadd8RowsAvx2>(t); }

}  // namespace kedge::gemm_rows
