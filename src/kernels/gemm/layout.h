// The packed layout of weights, version 1. It does not depend on the ISA.
//
// Panels of 16 outputs (the last one padded with zero codes and zero scales):
//   f32            [N/16][K][16] fp32
//   bf16, f16      [N/16][K][16] 16-bit
//   affine8        [N/16][ceil(K/4)][16][4] u8: a lane holds 4 consecutive k of one output
//   affine4        [N/16][ceil(K/8)][16][4] u8: byte j of a lane holds k + j in its low and k + 4 + j in its high nibble
//   scales         [N/16][G][16] fp32, bf16 or f16 (16 bits only where every scale is exact in them)
//   zeros          [N/16][G][16] u8; absent when symmetric
// Codes, scales and zeros lie in one buffer at multiples of 64 bytes, codes with 64 spare bytes on either side:
// kernels load words at byte offsets of -2 .. +2, which replaces shifts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/task.h"

namespace kedge {

inline constexpr int kGemmLayoutVersion = 1;

std::int64_t panel_count(std::int64_t n) noexcept;
std::int64_t group_count(const GemmDesc& desc) noexcept;
std::int64_t panel_bytes(const GemmDesc& desc) noexcept;
std::size_t scale_bytes(ScaleType type) noexcept;
bool is_affine(WeightFormat format) noexcept;

/// Offsets within a weight's storage.
struct StorageMap {
  std::size_t codes, scales, zeros, total;
};
StorageMap storage_map(const GemmDesc& desc) noexcept;

struct PackedAnchor {
  PackedWeight weight;
  WeightView view;  ///< of weight
};

WeightView weight_view(const PackedWeight& weight) noexcept;
/// One weight as fp32: (code - zero) * scale, on its anchor where there is one, or the float's value.
float weight_at(const WeightView& w, std::int64_t n, std::int64_t k) noexcept;
int code_at(const WeightView& w, std::int64_t n, std::int64_t k) noexcept;
int zero_at(const WeightView& w, std::int64_t n, std::int64_t g) noexcept;
float scale_at(const WeightView& w, std::int64_t n, std::int64_t g) noexcept;

}  // namespace kedge
