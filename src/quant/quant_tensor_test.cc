// Against the definition written out in double precision. What compressed-tensors itself computed is compared in
// io/golden_test.cc, where its files can be read.
#include "quant/quant_tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kedge {
namespace {

std::vector<float> random_weights(std::size_t count, std::uint64_t seed, float scale = 1) {
  Rng rng(seed);
  std::vector<float> weights(count);
  for (float& w : weights) w = scale * static_cast<float>(rng.normal());
  return weights;
}

std::vector<float> decoded(const QuantTensor& q) {
  std::vector<float> out(static_cast<std::size_t>(q.rows * q.cols));
  dequantize(q, out);
  return out;
}

constexpr QuantArgs kW4Group32{4, true, QuantStrategy::group, 32};
constexpr QuantArgs kW4Group32Asym{4, false, QuantStrategy::group, 32};

TEST(QuantizeRtn, SymmetricCodesByHand) {
  // absmax 7.5 gives a scale of exactly 1; ties go to even; 7.5 rounds to 8 and is clamped to 7.
  const std::vector<float> weights{7.5f, -7.5f, 0.5f, 1.5f, -0.5f, -1.5f, 2.49f, -3};
  const QuantTensor q = quantize_rtn(weights, 1, 8, {4, true, QuantStrategy::channel, -1}, DType::bf16);
  EXPECT_EQ(q.scales, std::vector<float>{1});
  EXPECT_EQ(q.codes, (std::vector<std::uint8_t>{15, 0, 8, 10, 8, 6, 10, 5}));
  EXPECT_EQ(decoded(q), (std::vector<float>{7, -8, 0, 2, 0, -2, 2, -3}));
}

TEST(QuantizeRtn, AsymmetricCodesByHand) {
  const std::vector<float> weights{-3, 12, 0, 4.5f};  // scale 1, zero point -8 + 3 = -5, stored as 3
  const QuantTensor q = quantize_rtn(weights, 1, 4, {4, false, QuantStrategy::channel, -1}, DType::f32);
  EXPECT_EQ(q.scales, std::vector<float>{1});
  EXPECT_EQ(q.zeros, std::vector<std::uint8_t>{3});
  EXPECT_EQ(q.codes, (std::vector<std::uint8_t>{0, 15, 3, 8}));  // 4.5 - 5 = -0.5 rounds to 0, even
  EXPECT_EQ(decoded(q), (std::vector<float>{-3, 12, 0, 5}));
}

TEST(QuantizeRtn, StaysWithinHalfAStep) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const std::int64_t group : {32, 96}) {
        const std::vector<float> weights = random_weights(7 * 96, 11);
        const QuantTensor q = quantize_rtn(weights, 7, 96, {bits, symmetric, QuantStrategy::group, group}, DType::f32);
        const std::vector<float> back = decoded(q);
        for (std::size_t i = 0; i < weights.size(); ++i) {
          const double s = q.scales[i / static_cast<std::size_t>(group)];
          EXPECT_LE(q.codes[i], q.args.max_code());
          // Symmetric: the positive extreme lies half a step above the largest code.
          EXPECT_LE(std::abs(double{weights[i]} - back[i]), 0.5001 * s * (symmetric ? 1 : 2))
              << bits << " " << symmetric;
        }
      }
    }
  }
}

TEST(QuantizeRtn, ScalesAreRoundedToTheFilesType) {
  const std::vector<float> weights = random_weights(64, 3);
  for (const float scale : quantize_rtn(weights, 1, 64, kW4Group32, DType::bf16).scales) {
    EXPECT_EQ(scale, to_float(to_bfloat16(scale)));
  }
  for (const float scale : quantize_rtn(weights, 1, 64, kW4Group32, DType::f16).scales) {
    EXPECT_EQ(scale, to_float(to_float16(scale)));
  }
}

TEST(QuantizeRtn, ZeroAndTinyGroupsDecodeToZero) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const QuantArgs& args : {kW4Group32, kW4Group32Asym}) {
      for (const float value : {0.0f, -0.0f, 1e-30f, -1e-44f}) {
        if (dtype != DType::f16 && value == 1e-30f) continue;  // has a scale there
        const std::vector<float> weights(32, value);
        const QuantTensor q = quantize_rtn(weights, 1, 32, args, dtype);
        EXPECT_GT(q.scales[0], 0);
        for (const float w : decoded(q)) EXPECT_NEAR(w, 0, 1e-43) << dtype_name(dtype) << " " << value;
      }
    }
  }
}

TEST(QuantizeRtn, HugeGroupsKeepAFiniteScale) {
  const float huge = std::numeric_limits<float>::max();
  const std::vector<float> weights{huge, -huge, 1, 0};
  for (const bool symmetric : {true, false}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const QuantTensor q = quantize_rtn(weights, 1, 4, {2, symmetric, QuantStrategy::channel, -1}, dtype);
      EXPECT_TRUE(all_finite(q.scales));
      for (const std::uint8_t code : q.codes) EXPECT_LE(code, 3);
    }
  }
}

TEST(QuantizeRtn, CodesOfNanStayInRange) {
  std::vector<float> weights = random_weights(32, 5);
  weights[3] = std::numeric_limits<float>::quiet_NaN();
  weights[4] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(all_finite(weights));
  for (const std::uint8_t code : quantize_rtn(weights, 1, 32, kW4Group32, DType::bf16).codes) EXPECT_LE(code, 15);
}

TEST(AllFinite, SeesOneBadValueAnywhere) {
  std::vector<float> values = random_weights(100, 1);
  EXPECT_TRUE(all_finite(values));
  EXPECT_TRUE(all_finite({}));
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::nanf("")}) {
      std::vector<float> copy = values;
      copy[i] = bad;
      EXPECT_FALSE(all_finite(copy));
    }
  }
}

TEST(Dequantize, HandlesNegativeScalesAndRows) {
  QuantTensor q;
  q.args = kW4Group32;
  q.rows = 2;
  q.cols = 64;
  q.codes.assign(128, 9);
  q.scales = {-0.5f, 2, 1, 0};
  std::vector<float> row(64);
  dequantize_row(q, 0, row.data());
  EXPECT_EQ(row[0], -0.5f);
  EXPECT_EQ(row[63], 2);
  dequantize_row(q, 1, row.data());
  EXPECT_EQ(row[0], 1);
  EXPECT_EQ(row[32], 0);
}

TEST(RowsOf, AreThoseOfTheWhole) {
  for (const bool symmetric : {true, false}) {
    std::vector<float> weights(5 * 64);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i % 37) - 11.0f;
    QuantArgs args = kW4Group32;
    args.symmetric = symmetric;
    const QuantTensor whole = quantize_rtn(weights, 5, 64, args, DType::bf16);
    const QuantTensor part = rows_of(whole, 2, 3);
    EXPECT_EQ(part.zeros.empty(), symmetric);
    std::vector<float> all(weights.size()), some(3 * 64);
    dequantize(whole, all);
    dequantize(part, some);
    EXPECT_EQ(some, std::vector<float>(all.begin() + 2 * 64, all.end()));
  }
}

TEST(StorableScale, RoundsClampsAndAvoidsZero) {
  EXPECT_EQ(storable_scale(1e9f, DType::f16), 65504);
  EXPECT_EQ(storable_scale(-1e9f, DType::f16), -65504);
  EXPECT_EQ(storable_scale(1e-9f, DType::f16), 0x1p-10f);
  EXPECT_EQ(storable_scale(0, DType::bf16), 0x1p-7f);
  EXPECT_EQ(storable_scale(0.1f, DType::f32), 0.1f);
}

}  // namespace
}  // namespace kedge
