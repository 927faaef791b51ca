// Values by hand, every ISA's bits, and that what is encoded decodes to what was tuned. Gradients are compared with
// libtorch's in ptq/methods_twin.
#include "kernels/fake_quant/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

/// A matrix with parameters somewhere on their way.
struct Subject {
  Subject(const QuantArgs& args, DType scale_dtype, std::int64_t groups, std::int64_t group, bool rounding,
          std::uint64_t seed)
      : weights(draw(groups * group, seed)),
        min(zeros(groups)),
        max(zeros(groups)),
        alpha(zeros(groups)),
        beta(zeros(groups)),
        factor(zeros(groups)),
        gradient(draw(groups * group, seed + 1)) {
    Rng rng(seed + 2);
    for (auto* values : {&alpha, &beta}) {
      for (float& v : *values) v = static_cast<float>(0.6 + 0.4 * rng.uniform());
    }
    for (float& v : factor) v = static_cast<float>(0.8 + 0.4 * rng.uniform());
    if (rounding) {
      for (std::size_t i = 0; i < weights.size(); ++i) v.push_back(static_cast<float>(rng.uniform() - 0.5));
    }
    find_group_ranges(weights.data(), groups, group, min.data(), max.data());
    matrix = {args,
              scale_dtype,
              groups,
              group,
              weights.data(),
              min.data(),
              max.data(),
              rounding ? v.data() : nullptr,
              alpha.data(),
              beta.data(),
              rounding ? nullptr : factor.data()};
  }

  static std::vector<float> zeros(std::int64_t n) { return std::vector<float>(static_cast<std::size_t>(n)); }
  static std::vector<float> draw(std::int64_t n, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<float> out = zeros(n);
    for (float& x : out) x = static_cast<float>(0.1 * rng.normal());
    return out;
  }
  std::vector<float> values(Isa isa) {
    ThreadPool threads(2);
    std::vector<float> out(weights.size());
    float* to[] = {out.data()};
    fake_quantize(threads, isa, {&matrix, 1}, to);
    return out;
  }
  void step(Isa isa, float lr) {
    ThreadPool threads(2);
    const float* from[] = {gradient.data()};
    step_fake_quantization(threads, isa, {&matrix, 1}, from, lr);
  }

  std::vector<float> weights, min, max, alpha, beta, factor, v, gradient;
  FakeQuantMatrix matrix;
};

constexpr QuantArgs kSymmetric{4, true, QuantStrategy::channel, -1}, kAsymmetric{4, false, QuantStrategy::channel, -1};

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (isa <= detect_isa()) out.push_back(isa);
  }
  return out;
}

TEST(FakeQuant, ByHand) {
  float weights[] = {4, -2, 1.25f, 0.25f}, min, max, alpha = 1, beta = 1, v[] = {0, 0, 0.1f, 0.3f}, out[4];
  find_group_ranges(weights, 1, 4, &min, &max);
  EXPECT_EQ(min, -2);
  EXPECT_EQ(max, 4);
  FakeQuantMatrix m{kSymmetric, DType::bf16, 1, 4, weights, &min, &max, v, &alpha, &beta, nullptr};
  ThreadPool threads(1);
  float* to[] = {out};
  fake_quantize(threads, Isa::scalar, {&m, 1}, to);
  // The larger extreme is the positive one: s = -4 / 8, quotients -8, 4, -2.5 + 0.1, -0.5 + 0.3.
  EXPECT_EQ(std::vector<float>(out, out + 4), (std::vector<float>{4, -2, 1, 0}));
  const QuantTensor q = encode_fake_quantized(Isa::scalar, m, 1, 4);
  EXPECT_EQ(q.scales, std::vector<float>{-0.5f});
  EXPECT_EQ(q.codes, (std::vector<std::uint8_t>{0, 12, 6, 8}));
  EXPECT_TRUE(q.zeros.empty());

  float wide[] = {-3, 12, 0, 4.5f};  // s = 15 / 15, z = 3; 4.5 + 0.3 rounds to 5
  find_group_ranges(wide, 1, 4, &min, &max);
  m.args = kAsymmetric;
  m.weights = wide;
  fake_quantize(threads, Isa::scalar, {&m, 1}, to);
  EXPECT_EQ(std::vector<float>(out, out + 4), (std::vector<float>{-3, 12, 0, 5}));
  EXPECT_EQ(encode_fake_quantized(Isa::scalar, m, 1, 4).zeros, std::vector<std::uint8_t>{3});
  // V against the gradient's sign where nothing is clamped, times the scale's sign.
  const float gradient[] = {1, -1, 1, 0};
  const float* from[] = {gradient};
  step_fake_quantization(threads, Isa::scalar, {&m, 1}, from, 0.01f);
  EXPECT_FLOAT_EQ(v[0], -0.01f);
  EXPECT_FLOAT_EQ(v[1], 0.01f);
  EXPECT_FLOAT_EQ(v[2], 0.09f);
  EXPECT_FLOAT_EQ(v[3], 0.3f);
}

TEST(FakeQuant, SameBitsOnEveryIsaAndDecodedAsTuned) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const std::int64_t group : {32, 21}) {  // one with a tail
        for (const bool rounding : {true, false}) {
          for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
            const QuantArgs args{bits, symmetric, QuantStrategy::group, group};
            const auto make = [&] { return Subject(args, dtype, 40, group, rounding, 5); };
            Subject reference = make();
            for (int i = 0; i < 3; ++i) reference.step(Isa::scalar, 0.02f);
            const std::vector<float> values = reference.values(Isa::scalar);
            for (const Isa isa : isas()) {
              Subject other = make();
              for (int i = 0; i < 3; ++i) other.step(isa, 0.02f);
              EXPECT_EQ(other.v, reference.v);
              EXPECT_EQ(other.alpha, reference.alpha);
              EXPECT_EQ(other.beta, reference.beta);
              EXPECT_EQ(other.factor, reference.factor);
              EXPECT_EQ(other.values(isa), values);
            }
            const QuantTensor q = encode_fake_quantized(detect_isa(), reference.matrix, 20, 2 * group);
            std::vector<float> decoded(values.size());
            dequantize(q, decoded);
            EXPECT_EQ(decoded, values);
          }
        }
      }
    }
  }
}

// What tuning starts from is the grid that quantize_rtn calls full range.
TEST(FakeQuant, UntunedItIsRoundToNearestOfTheFullRange) {
  for (const int bits : {2, 3, 4, 8}) {
    const QuantArgs args{bits, true, QuantStrategy::group, 32};
    const Subject s(args, DType::bf16, 40, 32, true, 9);
    FakeQuantMatrix untuned = s.matrix;
    std::vector<float> none(static_cast<std::size_t>(untuned.groups * untuned.group)), one(static_cast<std::size_t>(untuned.groups), 1.0f);
    untuned.rounding = none.data();
    untuned.alpha = untuned.beta = one.data();
    ScaleSearch search;
    search.method = ScaleMethod::full_range;
    const QuantTensor q = encode_fake_quantized(detect_isa(), untuned, 20, 64);
    const QuantTensor expected = quantize_rtn({untuned.weights, none.size()}, 20, 64, args, DType::bf16, search);
    EXPECT_EQ(q.scales, expected.scales);
    EXPECT_EQ(q.codes, expected.codes);
  }
}

TEST(FakeQuant, GroupsOfZerosAndOfOneSignStayFinite) {
  for (const QuantArgs& args : {kSymmetric, kAsymmetric}) {
    for (const float value : {0.0f, 0.5f, -0.5f}) {
      Subject s(args, DType::f16, 2, 32, true, 9);
      std::fill(s.weights.begin(), s.weights.end(), value);
      find_group_ranges(s.weights.data(), 2, 32, s.min.data(), s.max.data());
      for (int i = 0; i < 50; ++i) s.step(detect_isa(), 0.02f);
      for (const float x : s.values(detect_isa())) EXPECT_LE(std::fabs(x - value), 0.5f) << value;
    }
  }
}

TEST(FakeQuant, ParametersStayInTheirRanges) {
  Subject s(kAsymmetric, DType::bf16, 8, 32, true, 3);
  for (int i = 0; i < 200; ++i) s.step(detect_isa(), 0.05f);
  for (const float x : s.v) EXPECT_LE(std::fabs(x), 0.5f);
  for (const auto* values : {&s.alpha, &s.beta}) {
    for (const float x : *values) EXPECT_TRUE(x >= 0 && x <= 1) << x;
  }
}

}  // namespace
}  // namespace kedge
