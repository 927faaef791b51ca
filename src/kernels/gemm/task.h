// What a row of the gemm table works on: plain data only, so that ISA files instantiate nothing from std.
//
// Rows of x are packed before use, in tiles of at most `row_tile` rows (tiles of one row block differ by at most
// one row). A tile of R rows is
//   f32: float [k_padded][R]                       fp32 activations
//   s8:  int8 [k_padded / 4][R][4]                 k .. k + 3 of a row are one 32-bit word
//   s16: int16 [k_padded / 4][R][4]                k, k + 2, k + 1, k + 3: pairs for a 16-bit multiply-add
// with float scale [G][R] and int32 sum [G][R] (sum of q over the group) for s8 and s16. k_padded is k rounded up
// to 8; the padding is zero. A zero activation changes no bit: an accumulator is never -0 (it starts at +0, and
// round-to-nearest gives -0 only from two -0 addends).
#pragma once

#include <cstdint>

#include "kernels/gemm/format.h"

namespace kedge {

inline constexpr std::int64_t kPanel = 16;      ///< outputs of a weight panel
inline constexpr std::int64_t kRowBlock = 96;   ///< most rows of one task: their packed x stays in L2
inline constexpr std::int64_t kMaxInt8Group = 65536;  ///< 255 * 127 * group stays below 2^31

enum class RowLayout : std::uint8_t { f32, s8, s16 };

/// A packed weight (kernels/gemm/layout.h).
struct WeightView {
  const std::uint8_t* codes;  ///< [panels][panel_bytes]; 64 bytes before and after are readable
  std::int64_t first_panel;   ///< of an anchor: the panel that codes begin with
  const void* scales;         ///< [panels][groups][16] of scale_type
  const std::uint8_t* zeros;  ///< [panels][groups][16]; null: zero_point everywhere
  std::int64_t n, k;
  std::int64_t group, groups;
  std::int64_t panel_bytes;
  WeightFormat format;
  ScaleType scale_type;
  std::int32_t zero_point;
  float input_scale;         ///< kernels/gemm/gemm.h, GemmDesc
  const WeightView* anchor;  ///< [n, k] that the codes are deltas on; null: none
  const float* row_scale;    ///< [panels][16] with an anchor
};

/// Packs one tile: rows x + (gather ? gather[i] : i) * ldx for i < rows.
struct PackTask {
  const float* x;
  std::int64_t ldx;
  const std::int32_t* gather;
  std::int64_t rows;
  std::int64_t k, k_padded;
  std::int64_t group, groups;  ///< s8 and s16 only
  float input_scale;           ///< of every q; 0: each row and group has its own
  void* out;
  float* scale;
  std::int32_t* sum;
};

/// One row block times panels [panel_begin, panel_end). y: the block's first row; column 0 is output y_column.
struct GemmTask {
  WeightView w;
  const void* x;
  const float* scale;
  const std::int32_t* sum;
  std::int64_t rows;  ///< <= kRowBlock
  std::int64_t row_tile;
  std::int64_t k_padded;
  std::int64_t panel_begin, panel_end;
  float* y;
  std::int64_t ldy;
  std::int64_t y_column;
};

using PackFunction = void (*)(const PackTask&) noexcept;
using GemmFunction = void (*)(const GemmTask&) noexcept;
/// Panels [begin, end) of a weight without an anchor as fp32, [panels][k_padded][16]; zero beyond k.
using DequantizeFunction = void (*)(const WeightView& w, std::int64_t begin, std::int64_t end, float* out) noexcept;

/// k_padded of rows and of decoded panels.
static inline std::int64_t padded(std::int64_t k) noexcept { return (k + 7) / 8 * 8; }

/// Tiles of a row block and the first row of tile t.
static inline std::int64_t tile_count(std::int64_t rows, std::int64_t row_tile) noexcept {
  return (rows + row_tile - 1) / row_tile;
}
static inline std::int64_t tile_begin(std::int64_t rows, std::int64_t tiles, std::int64_t t) noexcept {
  return rows * t / tiles;
}

}  // namespace kedge
