#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace kedge {
namespace {

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(DType::u64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_bits(dtype), 0);
  }
  EXPECT_EQ(parse_dtype("bf16"), std::nullopt);
  EXPECT_EQ(dtype_bits(DType::f4), 4);
  EXPECT_EQ(dtype_bits(DType::f6_e2m3), 6);
  EXPECT_STREQ(dtype_name(DType::f8_e4m3), "F8_E4M3");
}

// The value a half stands for, from the definition of the format.
double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

TEST(DType, AllHalves) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float16 half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    const double expected = half_value(half.bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(to_float(to_float16(value))));
      continue;
    }
    ASSERT_EQ(static_cast<double>(value), expected) << bits;
    ASSERT_EQ(std::signbit(value), std::signbit(expected)) << bits;
    ASSERT_EQ(to_float16(value).bits, half.bits);
  }
}

// Between each two neighbours: below the middle goes down, above goes up, the middle goes to the even one.
TEST(DType, HalfRounding) {
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const double low = half_value(static_cast<std::uint16_t>(bits));
    const double high = half_value(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    ASSERT_EQ(static_cast<double>(middle), (low + high) / 2);
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(to_float16(middle).bits, even);
    ASSERT_EQ(to_float16(std::nextafter(middle, 0.0f)).bits, bits);
    ASSERT_EQ(to_float16(std::nextafter(middle, 1e9f)).bits, bits + 1);
    ASSERT_EQ(to_float16(-middle).bits, even | 0x8000);
  }
  EXPECT_EQ(to_float16(65504.0f).bits, 0x7BFF);
  EXPECT_EQ(to_float16(std::nextafter(65520.0f, 0.0f)).bits, 0x7BFF);
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(to_float16(-std::numeric_limits<float>::infinity()).bits, 0xFC00);
  EXPECT_EQ(to_float16(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TEST(DType, BrainFloat) {
  EXPECT_EQ(to_bfloat16(1.0f).bits, 0x3F80);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3F808000u)).bits, 0x3F80);  // tie to even
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3F818000u)).bits, 0x3F82);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x3F808001u)).bits, 0x3F81);
  EXPECT_EQ(to_bfloat16(std::bit_cast<float>(0x7F7FFFFFu)).bits, 0x7F80);  // rounds to infinity
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0xFFFFFFFFu)))));
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bfloat16 x{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(x))) continue;
    ASSERT_EQ(to_bfloat16(to_float(x)).bits, x.bits);
  }
}

TEST(DType, ConvertsUnaligned) {
  const float values[] = {0.0f, -1.5f, 3.140625f, 1e30f};
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    std::byte memory[64];
    convert_from_float(dtype, values, 3, memory + 1);
    float back[3];
    convert_to_float(dtype, memory + 1, 3, back);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(back[i], values[i]) << dtype_name(dtype);
  }
  const double wide[] = {0.1, -2e300};
  float narrow[2];
  convert_to_float(DType::f64, wide, 2, narrow);
  EXPECT_EQ(narrow[0], 0.1f);
  EXPECT_EQ(narrow[1], -std::numeric_limits<float>::infinity());
  EXPECT_FALSE(is_convertible_float(DType::f8_e4m3));
  EXPECT_DEATH(convert_to_float(DType::i8, wide, 1, narrow), "is_convertible_float");
}

TEST(Tensor, ShapesAndViews) {
  EXPECT_EQ(num_elements({}), 1);
  EXPECT_EQ(num_elements({2, 0, 3}), 0);
  EXPECT_EQ(shape_string({2, 24, 256}), "[2, 24, 256]");
  EXPECT_EQ(shape_string({}), "[]");

  Tensor tensor(DType::f32, {3, 2, 4});
  for (int i = 0; i < 24; ++i) tensor.data<float>()[i] = static_cast<float>(i);
  const TensorView view = tensor.view();
  EXPECT_EQ(view.num_bytes(), 96u);
  const TensorView slice = view[1];
  EXPECT_EQ(slice.shape, (Shape{2, 4}));
  float first;
  std::memcpy(&first, slice.data, sizeof first);
  EXPECT_EQ(first, 8.0f);
  const TensorView rows = view.rows(1, 3);
  EXPECT_EQ(rows.shape, (Shape{2, 2, 4}));
  EXPECT_EQ(rows.data, slice.data);
  EXPECT_EQ(view.rows(3, 3).size(), 0);
  EXPECT_DEATH(view[3], "shape");
  EXPECT_DEATH(view.rows(2, 4), "shape");
}

TEST(Tensor, FourBitRowsMustBeWholeBytes) {
  Tensor tensor(DType::f4, {4, 6});
  EXPECT_EQ(tensor.num_bytes(), 12u);
  EXPECT_EQ(tensor.view()[2].data, tensor.view().data + 6);
  Tensor odd(DType::f4, {4, 5});
  EXPECT_DEATH(odd.view()[1], "bits % 8");
}

TEST(Tensor, BufferIsAlignedAndMoves) {
  for (std::size_t bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{5} << 20}) {
    Buffer buffer(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    std::memset(buffer.data(), 1, bytes);
    std::byte* data = buffer.data();
    Buffer moved(std::move(buffer));
    EXPECT_EQ(moved.data(), data);
    EXPECT_EQ(moved.size(), bytes);
    EXPECT_EQ(buffer.data(), nullptr);
    buffer = std::move(moved);
    EXPECT_EQ(buffer.data(), data);
  }
  EXPECT_EQ(Buffer(0).data(), nullptr);
  EXPECT_EQ(Tensor().size(), 0);
  EXPECT_THROW(Tensor(DType::f32, {1ll << 40, 1ll << 40}), std::bad_alloc);
}

}  // namespace
}  // namespace kedge
