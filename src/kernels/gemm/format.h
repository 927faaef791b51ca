// The value formats that kernels read. Kept free of other includes: ISA files see it.
#pragma once

#include <cstdint>

namespace kedge {

/// Value formats that kernels know. 2- and 3-bit codes are widened to affine4 when packed.
enum class WeightFormat : std::uint8_t { f32, bf16, f16, affine4, affine8 };
/// How a packed weight keeps its scales: 16 bits where that is exact, fp32 otherwise.
enum class ScaleType : std::uint8_t { f32, bf16, f16 };

}  // namespace kedge
