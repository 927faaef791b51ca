// rmsnorm, softmax, sigmoid, log_sum_exp, gated_activation: against formulas in double, and every ISA against scalar.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/softmax/softmax.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {
namespace {

constexpr std::int64_t kSizes[] = {1, 3, 15, 16, 17, 24, 31, 48, 64, 100, 257, 1000, 2048};
constexpr double kEps = 0x1p-24;  // half an ulp of 1

std::vector<float> normals(std::int64_t count, std::uint64_t seed, double scale = 1.0) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(scale * rng.normal());
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Elementwise : testing::Test {
  ThreadPool one{1}, three{3};
  Arena scratch, scratch3;
  ExecContext alone{one, scratch}, shared{three, scratch3};
};

TEST_F(Elementwise, RmsNorm) {
  for (std::int64_t size : kSizes) {
    const std::int64_t rows = size > 500 ? 40 : 5, ld = size + 3;
    const auto x = normals(rows * ld, 5, 3.0), weight = normals(size, 6);
    std::vector<float> y(static_cast<std::size_t>(rows * ld), 9.0f);
    rmsnorm(alone, x.data(), ld, rows, size, weight.data(), 1e-5f, y.data(), ld, Isa::scalar);
    for (std::int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (std::int64_t i = 0; i < size; ++i) squares += static_cast<double>(x[r * ld + i]) * x[r * ld + i];
      const double root = std::sqrt(squares / static_cast<double>(size) + static_cast<double>(1e-5f));
      for (std::int64_t i = 0; i < size; ++i) {
        const double exact = x[r * ld + i] / root * weight[i];
        // Roundings of the sum (a chain of size / 16 and a tree of 4), the mean, eps, root, inverse, two products.
        EXPECT_NEAR(y[r * ld + i], exact, std::fabs(exact) * kEps * (static_cast<double>(size) / 16 + 12));
      }
      EXPECT_EQ(y[r * ld + size], 9.0f);
    }
    for (Isa isa : available_isas()) {
      std::vector<float> other = x;  // in place
      rmsnorm(shared, other.data(), ld, rows, size, weight.data(), 1e-5f, other.data(), ld, isa);
      for (std::int64_t r = 0; r < rows; ++r) {
        EXPECT_EQ(std::memcmp(&other[r * ld], &y[r * ld], size * sizeof(float)), 0) << isa_name(isa) << " " << size;
      }
    }
  }
}

TEST_F(Elementwise, Softmax) {
  for (std::int64_t size : kSizes) {
    auto x = normals(3 * size, 7, 10.0);
    if (size > 3) x[1] = -std::numeric_limits<float>::infinity();
    auto y = x;
    softmax(y.data(), 3, size, Isa::scalar);
    for (std::int64_t r = 0; r < 3; ++r) {
      const float* row = x.data() + r * size;
      const double largest = *std::max_element(row, row + size);
      double sum = 0;
      for (std::int64_t i = 0; i < size; ++i) sum += std::exp(row[i] - largest);
      for (std::int64_t i = 0; i < size; ++i) {
        const double exact = std::exp(row[i] - largest) / sum;
        // x - max is rounded (up to 80: 2^-18 absolute in the exponent).
        EXPECT_NEAR(y[r * size + i], exact, exact * (0x1p-17 + kEps * static_cast<double>(size)) + 1e-45);
      }
    }
    if (size > 3) {
      EXPECT_EQ(y[1], 0.0f);
    }
    for (Isa isa : available_isas()) {
      auto other = x;
      softmax(other.data(), 3, size, isa);
      EXPECT_TRUE(same_bits(other, y)) << isa_name(isa) << " " << size;
      EXPECT_EQ(log_sum_exp(x.data(), size, isa), log_sum_exp(x.data(), size, Isa::scalar));
    }
  }
}

TEST_F(Elementwise, LogSumExp) {
  for (std::int64_t size : {1, 2, 17, 50304}) {
    const auto x = normals(size, 8, 4.0);
    double sum = 0;
    for (float value : x) sum += std::exp(static_cast<double>(value));
    EXPECT_NEAR(log_sum_exp(x.data(), size, detect_isa()), std::log(sum), 2e-6) << size;
  }
  const float far[] = {-1000.0f, -1001.0f};
  EXPECT_NEAR(log_sum_exp(far, 2, Isa::scalar), -1000.0 + std::log1p(std::exp(-1.0)), 1e-6);
}

/// Many arguments, the whole range of exp's results included: equal bits of exp on all ISAs.
TEST_F(Elementwise, SigmoidOverTheWholeRange) {
  std::vector<float> x;
  for (float v = -110.0f; v < 110.0f; v += 0.000731f) x.push_back(v);
  const auto infinity = std::numeric_limits<float>::infinity();
  x.insert(x.end(), {infinity, -infinity, 0.0f, -0.0f, 1e-30f});
  const auto count = static_cast<std::int64_t>(x.size());
  std::vector<float> y(x.size());
  sigmoid(x.data(), count, y.data(), Isa::scalar);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])));
    // Below -88.7 exp(-x) is inf and the result 0.
    EXPECT_NEAR(y[i], exact, exact * 4 * kEps + 3.3e-39) << x[i];
  }
  for (Isa isa : available_isas()) {
    std::vector<float> other(x.size());
    sigmoid(x.data(), count, other.data(), isa);
    EXPECT_TRUE(same_bits(other, y)) << isa_name(isa);
  }
  // softmax({0, x}) is exp(x) itself where x is small: subnormal results too.
  for (float v = -105.0f; v < -17.0f; v += 0.00713f) {
    float reference[2] = {0.0f, v};
    softmax(reference, 1, 2, Isa::scalar);
    EXPECT_NEAR(reference[1], std::exp(static_cast<double>(v)), std::exp(static_cast<double>(v)) * 3e-7 + 1e-45);
    for (Isa isa : available_isas()) {
      float other[2] = {0.0f, v};
      softmax(other, 1, 2, isa);
      ASSERT_EQ(std::memcmp(other, reference, sizeof(other)), 0) << isa_name(isa) << " " << v;
    }
  }
}

double exact_activation(FfnActivation activation, double x) {
  switch (activation) {
    case FfnActivation::silu: return x / (1.0 + std::exp(-x));
    case FfnActivation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case FfnActivation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case FfnActivation::relu2: return x > 0 ? x * x : 0.0;
  }
  return NAN;
}

// What is not a number stays visible, and huge numbers are numbers.
TEST_F(Elementwise, ActivationsOfExtremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (Isa isa : available_isas()) {
    for (auto activation : {FfnActivation::silu, FfnActivation::gelu, FfnActivation::gelu_tanh, FfnActivation::relu2}) {
      const auto of = [&](float x) {
        const float one = 1;
        float y = 0;
        gated_activation(alone, activation, &x, 1, &one, 1, 1, 1, &y, 1, isa);
        return y;
      };
      EXPECT_TRUE(std::isnan(of(NAN))) << isa_name(isa) << " " << static_cast<int>(activation);
      if (activation == FfnActivation::relu2) continue;
      EXPECT_EQ(of(3e38f), 3e38f) << isa_name(isa) << " " << static_cast<int>(activation);
      EXPECT_EQ(of(-3e38f), 0.0f) << isa_name(isa) << " " << static_cast<int>(activation);
      if (activation == FfnActivation::gelu) {
        EXPECT_EQ(of(kInf), kInf);
      }
    }
  }
}

TEST_F(Elementwise, GatedActivation) {
  for (auto activation : {FfnActivation::silu, FfnActivation::gelu, FfnActivation::gelu_tanh, FfnActivation::relu2}) {
    for (std::int64_t size : kSizes) {
      const std::int64_t rows = size > 500 ? 30 : 4, ld = size + 1;
      const auto gate = normals(rows * ld, 11, 3.0), up = normals(rows * size, 12);
      std::vector<float> h(static_cast<std::size_t>(rows * size));
      gated_activation(alone, activation, gate.data(), ld, up.data(), size, rows, size, h.data(), size, Isa::scalar);
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < size; ++i) {
          const double x = gate[r * ld + i], exact = exact_activation(activation, x) * up[r * size + i];
          EXPECT_NEAR(h[r * size + i], exact, 1e-6 * std::fabs(x * up[r * size + i]) + 1e-6 * std::fabs(exact));
        }
      }
      for (Isa isa : available_isas()) {
        auto other = gate;  // h aliases gate
        gated_activation(shared, activation, other.data(), ld, up.data(), size, rows, size, other.data(), ld, isa);
        for (std::int64_t r = 0; r < rows; ++r) {
          EXPECT_EQ(std::memcmp(&other[r * ld], &h[r * size], size * sizeof(float)), 0) << isa_name(isa) << " " << size;
        }
      }
    }
  }
}

}  // namespace
}  // namespace kedge
