// The functions that the table's rows point at. One translation unit per ISA defines its share.
#pragma once

#include "kernels/gemm/task.h"

namespace kedge::gemm_rows {

// Most rows of a decode row: beyond, the tile rows win (kernels/gemm/gemm_bench.cc).
inline constexpr int kDecodeRowsAvx2 = 4;
inline constexpr int kDecodeRowsAvx512 = 8;
inline constexpr int kInt8DecodeRows = 3;
// Rows of a tile, bounded by the registers that hold its sums.
inline constexpr int kTileRowsAvx2 = 6;
inline constexpr int kTileRowsAvx512 = 12;
inline constexpr int kTileRowsVnni = 10;  // 12 spill
inline constexpr int kMadd8RowsAvx2 = 4;  // two widened codes per vector take registers
inline constexpr int kMadd8RowsAvx512 = 12;

void pack_f32_reference(const PackTask& t) noexcept;
void pack_s8_reference(const PackTask& t) noexcept;
void run_fp32_reference(const GemmTask& t) noexcept;
void run_int8_reference(const GemmTask& t) noexcept;

void pack_f32_avx2(const PackTask& t) noexcept;
void pack_s8_avx2(const PackTask& t) noexcept;
void pack_s16_avx2(const PackTask& t) noexcept;
void run_fp32_decode_avx2(const GemmTask& t) noexcept;
void run_fp32_tiles_avx2(const GemmTask& t) noexcept;
void dequantize_panels_avx2(const WeightView& w, std::int64_t begin, std::int64_t end, float* out) noexcept;
void run_affine4_int8_avx2(const GemmTask& t) noexcept;
void run_affine8_int8_avx2(const GemmTask& t) noexcept;

void pack_f32_avx512(const PackTask& t) noexcept;
void pack_s8_avx512(const PackTask& t) noexcept;
void pack_s16_avx512(const PackTask& t) noexcept;
void run_fp32_decode_avx512(const GemmTask& t) noexcept;
void run_fp32_tiles_avx512(const GemmTask& t) noexcept;
void dequantize_panels_avx512(const WeightView& w, std::int64_t begin, std::int64_t end, float* out) noexcept;
void run_affine4_int8_avx512(const GemmTask& t) noexcept;
void run_affine8_int8_avx512(const GemmTask& t) noexcept;

void run_int8_decode_avx512vnni(const GemmTask& t) noexcept;
void run_int8_tiles_avx512vnni(const GemmTask& t) noexcept;

}  // namespace kedge::gemm_rows
