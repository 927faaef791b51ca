// Element types, by their safetensors names, and the conversions between the floating ones.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kedge {

enum class DType : std::uint8_t {
  boolean, f4, f6_e2m3, f6_e3m2, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
  i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64,
};

int dtype_bits(DType dtype) noexcept;               ///< 4 for f4, 6 for f6_*, 8, 16, 32 or 64
const char* dtype_name(DType dtype) noexcept;       ///< as in safetensors: "BF16"
std::optional<DType> parse_dtype(std::string_view name) noexcept;

struct bfloat16 { std::uint16_t bits; };
struct float16 { std::uint16_t bits; };

inline float to_float(bfloat16 x) noexcept { return std::bit_cast<float>(std::uint32_t(x.bits) << 16); }
float to_float(float16 x) noexcept;
/// Round to nearest, ties to even; NaN stays NaN.
bfloat16 to_bfloat16(float x) noexcept;
float16 to_float16(float x) noexcept;

/// count elements from a (possibly unaligned) buffer to fp32. dtype: f32, bf16, f16 or f64; CHECKs otherwise.
void convert_to_float(DType dtype, const void* source, std::int64_t count, float* out) noexcept;
/// fp32 to f32, bf16 or f16.
void convert_from_float(DType dtype, const float* source, std::int64_t count, void* out) noexcept;
bool is_convertible_float(DType dtype) noexcept;

}  // namespace kedge
