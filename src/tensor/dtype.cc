#include "tensor/dtype.h"

#include <cstring>
#include <iterator>

#include "base/check.h"

namespace kedge {
namespace {

struct DTypeRow {
  DType dtype;
  const char* name;
  int bits;
};

constexpr DTypeRow kDTypes[] = {
    {DType::boolean, "BOOL", 8},
    {DType::f4, "F4", 4},
    {DType::f6_e2m3, "F6_E2M3", 6},
    {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::u8, "U8", 8},
    {DType::i8, "I8", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},
    {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e8m0, "F8_E8M0", 8},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {DType::i16, "I16", 16},
    {DType::u16, "U16", 16},
    {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},
    {DType::i32, "I32", 32},
    {DType::u32, "U32", 32},
    {DType::f32, "F32", 32},
    {DType::c64, "C64", 64},
    {DType::f64, "F64", 64},
    {DType::i64, "I64", 64},
    {DType::u64, "U64", 64},
};

constexpr bool rows_in_enum_order() {
  for (std::size_t i = 0; i < std::size(kDTypes); ++i) {
    if (static_cast<std::size_t>(kDTypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_in_enum_order());
static_assert(std::size(kDTypes) == static_cast<std::size_t>(DType::u64) + 1);

const DTypeRow& row(DType dtype) noexcept {
  const auto index = static_cast<std::size_t>(dtype);
  KEDGE_CHECK(index < std::size(kDTypes));
  return kDTypes[index];
}

template <class T, class F>
void load_each(const void* source, std::int64_t count, float* out, F convert) noexcept {
  const char* bytes = static_cast<const char*>(source);
  for (std::int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * static_cast<std::int64_t>(sizeof value), sizeof value);
    out[i] = convert(value);
  }
}

template <class T, class F>
void store_each(const float* source, std::int64_t count, void* out, F convert) noexcept {
  char* bytes = static_cast<char*>(out);
  for (std::int64_t i = 0; i < count; ++i) {
    const T value = convert(source[i]);
    std::memcpy(bytes + i * static_cast<std::int64_t>(sizeof value), &value, sizeof value);
  }
}

}  // namespace

int dtype_bits(DType dtype) noexcept { return row(dtype).bits; }
const char* dtype_name(DType dtype) noexcept { return row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (const DTypeRow& candidate : kDTypes) {
    if (name == candidate.name) return candidate.dtype;
  }
  return std::nullopt;
}

// Integers only, here and below: the result does not depend on the rounding or denormal mode of the thread.
float to_float(float16 x) noexcept {
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000u) << 16;
  std::uint32_t exponent = (x.bits >> 10) & 0x1Fu;
  std::uint32_t mantissa = x.bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    if (mantissa == 0) return std::bit_cast<float>(sign);
    const int shift = std::countl_zero(mantissa) - 21;  // moves the leading one to bit 10
    mantissa = (mantissa << shift) & 0x3FFu;
    return std::bit_cast<float>(sign | (std::uint32_t(113 - shift) << 23) | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

bfloat16 to_bfloat16(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};  // quiet NaN
  return {static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

float16 to_float16(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  auto with_sign = [sign](std::uint32_t half) { return float16{static_cast<std::uint16_t>(sign | half)}; };
  if (magnitude > 0x7F800000u) return with_sign(0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x477FF000u) return with_sign(0x7C00u);  // 65520 and above round to infinity
  if (magnitude >= 0x38800000u) {                           // 2^-14 and above: normal
    const std::uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
    return with_sign((rounded - 0x38000000u) >> 13);
  }
  if (magnitude < 0x33000000u) return with_sign(0);     // below 2^-25, half of the smallest denormal
  const std::uint32_t shift = 126 - (magnitude >> 23);  // 14..24
  const std::uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
  const std::uint32_t kept = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return with_sign(kept + (rest > half || (rest == half && (kept & 1u)) ? 1 : 0));
}

bool is_convertible_float(DType dtype) noexcept {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64;
}

void convert_to_float(DType dtype, const void* source, std::int64_t count, float* out) noexcept {
  KEDGE_CHECK(is_convertible_float(dtype) && count >= 0);
  if (count == 0) return;
  switch (dtype) {
    case DType::f32: std::memcpy(out, source, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16: return load_each<bfloat16>(source, count, out, [](bfloat16 x) { return to_float(x); });
    case DType::f16: return load_each<float16>(source, count, out, [](float16 x) { return to_float(x); });
    default: return load_each<double>(source, count, out, [](double x) { return static_cast<float>(x); });
  }
}

void convert_from_float(DType dtype, const float* source, std::int64_t count, void* out) noexcept {
  KEDGE_CHECK((dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16) && count >= 0);
  if (count == 0) return;
  switch (dtype) {
    case DType::f32: std::memcpy(out, source, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16: return store_each<bfloat16>(source, count, out, [](float x) { return to_bfloat16(x); });
    default: return store_each<float16>(source, count, out, [](float x) { return to_float16(x); });
  }
}

}  // namespace kedge
