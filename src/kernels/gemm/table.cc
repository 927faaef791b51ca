#include "kernels/gemm/table.h"

#include <limits>

#include "kernels/gemm/rows.h"

namespace kedge {
namespace {

constexpr unsigned kPlain =
    format_bit(WeightFormat::f32) | format_bit(WeightFormat::bf16) | format_bit(WeightFormat::f16);
constexpr unsigned kAffine4 = format_bit(WeightFormat::affine4);
constexpr unsigned kAffine8 = format_bit(WeightFormat::affine8);
constexpr unsigned kAffine = kAffine4 | kAffine8;
constexpr std::int64_t kAnyRows = std::numeric_limits<std::int64_t>::max();
constexpr Numerics kSame = Numerics::consistent;
using enum Activations;
using namespace gemm_rows;

// name, isa, formats, activations, numerics, min_m, max_m, layout, row_tile, panel_tile, any_group, pack, run,
// dequantize
constexpr GemmRow kRows[] = {
    {"avx512-fp32-decode", Isa::avx512, kPlain | kAffine, fp32, kSame, 1, kDecodeRowsAvx512, RowLayout::f32,
     kDecodeRowsAvx512, 4, false, pack_f32_avx512, run_fp32_decode_avx512, dequantize_panels_avx512},
    {"avx512-fp32-tiles", Isa::avx512, kPlain | kAffine, fp32, kSame, 1, kAnyRows, RowLayout::f32, kTileRowsAvx512, 2,
     false, pack_f32_avx512, run_fp32_tiles_avx512, dequantize_panels_avx512},
    {"avx2-fp32-decode", Isa::avx2, kPlain | kAffine, fp32, kSame, 1, kDecodeRowsAvx2, RowLayout::f32, kDecodeRowsAvx2,
     4, false, pack_f32_avx2, run_fp32_decode_avx2, dequantize_panels_avx2},
    {"avx2-fp32-tiles", Isa::avx2, kPlain | kAffine, fp32, kSame, 1, kAnyRows, RowLayout::f32, kTileRowsAvx2, 1, false,
     pack_f32_avx2, run_fp32_tiles_avx2, dequantize_panels_avx2},
    {"avx512vnni-int8-decode", Isa::avx512_vnni, kAffine, int8, kSame, 1, kInt8DecodeRows, RowLayout::s8,
     kInt8DecodeRows, 4, false, pack_s8_avx512, run_int8_decode_avx512vnni},
    {"avx512vnni-int8-tiles", Isa::avx512_vnni, kAffine, int8, kSame, 1, kAnyRows, RowLayout::s8, kTileRowsVnni, 2,
     false, pack_s8_avx512, run_int8_tiles_avx512vnni},
    {"avx512-affine4-int8", Isa::avx512, kAffine4, int8, kSame, 1, kAnyRows, RowLayout::s8, kTileRowsAvx512, 2, false,
     pack_s8_avx512, run_affine4_int8_avx512},
    {"avx512-affine8-int8", Isa::avx512, kAffine8, int8, kSame, 1, kAnyRows, RowLayout::s16, kMadd8RowsAvx512, 2, false,
     pack_s16_avx512, run_affine8_int8_avx512},
    {"avx2-affine4-int8", Isa::avx2, kAffine4, int8, kSame, 1, kAnyRows, RowLayout::s8, kTileRowsAvx2, 1, false,
     pack_s8_avx2, run_affine4_int8_avx2},
    {"avx2-affine8-int8", Isa::avx2, kAffine8, int8, kSame, 1, kAnyRows, RowLayout::s16, kMadd8RowsAvx2, 1, false,
     pack_s16_avx2, run_affine8_int8_avx2},
    {"reference-fp32", Isa::scalar, kPlain | kAffine, fp32, kSame, 0, kAnyRows, RowLayout::f32, 1, 1, true,
     pack_f32_reference, run_fp32_reference},
    {"reference-int8", Isa::scalar, kAffine, int8, kSame, 0, kAnyRows, RowLayout::s8, 1, 1, true, pack_s8_reference,
     run_int8_reference},
};

}  // namespace

std::span<const GemmRow> gemm_table() noexcept { return kRows; }

}  // namespace kedge
