// Against torch's numbers, against double-precision residuals, and bit for bit over ISAs and thread counts.
#include "kernels/cholesky/cholesky.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace kedge {
namespace {

using Matrix = std::vector<float>;

/// A Hessian as calibration makes them: correlated inputs, some far larger than others, damped by 1 % of its mean.
Matrix hessian(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<double> h(static_cast<std::size_t>(n * n)), x(static_cast<std::size_t>(n));
  for (std::int64_t t = 0; t < 2 * n; ++t) {
    const double common = rng.normal();
    for (std::int64_t i = 0; i < n; ++i) x[i] = (rng.normal() + common) * (i % 17 == 3 ? 8.0 : 1.0);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = i; j < n; ++j) h[i * n + j] += x[i] * x[j];
    }
  }
  double mean = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += h[i * n + i] / static_cast<double>(n);
  Matrix out(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      out[i * n + j] = static_cast<float>(h[std::min(i, j) * n + std::max(i, j)] + (i == j ? 0.01 * mean : 0.0));
    }
  }
  return out;
}

struct CholeskyTest : testing::Test {
  ThreadPool one{1}, three{3};
  Arena scratch, scratch3;
  ExecContext alone{one, scratch}, shared{three, scratch3};
};

// m[i][j] = (7 i + 3 j^2) mod 11 / 4 - 1;  h = m m^T + 0.5;  torch 2.13, float64:
//   torch.linalg.cholesky(h, upper=True);  torch.linalg.solve(h, [1, 2, 3, 4, 5])
//   torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
constexpr std::int64_t kSmall = 5;
constexpr double kTorchCholesky[] = {
    1.47901995, -1.39450452, 0.25354628, -0.42257713, -1.09870053, 0,          1.98251284, -0.29453962, -0.48639570,
    0.36209458, 0,           0,          1.49129497,  -0.56904902, 0.67741302, 0,          0,           0,
    1.82305540, -0.49514856, 0,          0,           0,           0,          2.02056531,
};
constexpr double kTorchGptqFactor[] = {
    0.94245971,  0.26947220, -0.01922246, 0.21221681, 0.18765966, 0,           0.47550886, 0.25466671, 0.04733478,
    -0.19293500, 0,          0,           0.67700983, 0.12335442, -0.04894314, 0,          0,          0,
    0.50641937,  0.08268071, 0,           0,          0,          0,           0.40406102,
};
constexpr double kTorchSolve[] = {
    3.02614603, 1.31207600, 1.72098494, 2.24229997, 1.32767358,
};

Matrix small_matrix() {
  double m[kSmall][kSmall];
  for (int i = 0; i < kSmall; ++i) {
    for (int j = 0; j < kSmall; ++j) m[i][j] = (7 * i + 3 * j * j) % 11 / 4.0 - 1.0;
  }
  Matrix h;
  for (int i = 0; i < kSmall; ++i) {
    for (int j = 0; j < kSmall; ++j) {
      double sum = i == j ? 0.5 : 0.0;
      for (int k = 0; k < kSmall; ++k) sum += m[i][k] * m[j][k];
      h.push_back(static_cast<float>(sum));
    }
  }
  return h;
}

TEST_F(CholeskyTest, AgreesWithTorch) {
  Matrix s = small_matrix();
  ASSERT_TRUE(cholesky(alone, detect_isa(), kSmall, s.data(), kSmall));
  for (std::size_t i = 0; i < s.size(); ++i) EXPECT_NEAR(s[i], kTorchCholesky[i], 3e-6) << i;
  Matrix b = {1, 2, 3, 4, 5};
  cholesky_solve(alone, detect_isa(), kSmall, s.data(), kSmall, b.data(), 1, 1);
  for (std::size_t i = 0; i < b.size(); ++i) EXPECT_NEAR(b[i], kTorchSolve[i], 3e-5) << i;
  Matrix u = small_matrix();
  ASSERT_TRUE(gptq_factor(alone, detect_isa(), kSmall, u.data(), kSmall));
  for (std::size_t i = 0; i < u.size(); ++i) EXPECT_NEAR(u[i], kTorchGptqFactor[i], 3e-6) << i;
}

constexpr std::int64_t kSizes[] = {1, 7, 64, 127, 128, 129, 300, 401};

TEST_F(CholeskyTest, FactorsReproduceTheMatrix) {
  for (std::int64_t n : kSizes) {
    const Matrix h = hessian(n, 3);
    Matrix s = h;
    for (std::int64_t i = 0; i < n; ++i) std::fill_n(&s[i * n], i, std::nanf(""));  // only the upper triangle is read
    Matrix u = s, t(h.size());
    ASSERT_TRUE(cholesky(shared, detect_isa(), n, s.data(), n));
    ASSERT_TRUE(gptq_factor(shared, detect_isa(), n, u.data(), n));
    triangular_inverse(shared, detect_isa(), n, s.data(), n, t.data(), n);
    const double scale = *std::max_element(h.begin(), h.end());
    double factor_error = 0, inverse_error = 0, gptq_error = 0;
    std::vector<double> uh(static_cast<std::size_t>(n * n));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t k = i; k < n; ++k) uh[i * n + j] += static_cast<double>(u[i * n + k]) * h[k * n + j];
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        if (j < i) {
          EXPECT_EQ(s[i * n + j], 0.0f);
          EXPECT_EQ(t[i * n + j], 0.0f);
          EXPECT_EQ(u[i * n + j], 0.0f);
        }
        double ss = 0, st = 0, uhu = 0;
        for (std::int64_t k = 0; k < n; ++k) {
          ss += static_cast<double>(s[k * n + i]) * s[k * n + j];
          st += static_cast<double>(s[i * n + k]) * t[k * n + j];
          uhu += uh[i * n + k] * u[j * n + k];
        }
        factor_error = std::max(factor_error, std::fabs(ss - h[i * n + j]));
        inverse_error = std::max(inverse_error, std::fabs(st - (i == j ? 1.0 : 0.0)));
        gptq_error = std::max(gptq_error, std::fabs(uhu - (i == j ? 1.0 : 0.0)));  // h^-1 = u^T u <=> u h u^T = 1
      }
    }
    // Backward error: n ulps of the largest element; the others are amplified by the condition (some 1e4).
    EXPECT_LE(factor_error, 0x1p-24 * static_cast<double>(n + 8) * scale) << n;
    EXPECT_LE(inverse_error, 1e-4) << n;
    EXPECT_LE(gptq_error, 1e-3) << n;
  }
}

TEST_F(CholeskyTest, SolvesManyRightHandSides) {
  for (std::int64_t n : kSizes) {
    const std::int64_t m = n % 2 == 0 ? 3 : 150, ldb = m + 1;
    const Matrix h = hessian(n, 4);
    Matrix s = h, b(static_cast<std::size_t>(n * ldb));
    Rng rng(6);
    for (float& value : b) value = static_cast<float>(rng.normal());
    Matrix x = b;
    ASSERT_TRUE(cholesky(shared, detect_isa(), n, s.data(), n));
    cholesky_solve(shared, detect_isa(), n, s.data(), n, x.data(), ldb, m);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < m; ++j) {
        double sum = 0, size = 0;
        for (std::int64_t k = 0; k < n; ++k) {
          sum += static_cast<double>(h[i * n + k]) * x[k * ldb + j];
          size += std::fabs(static_cast<double>(h[i * n + k]) * x[k * ldb + j]);
        }
        EXPECT_NEAR(sum, b[i * ldb + j], 1e-5 * size + 1e-5) << n;
      }
      EXPECT_EQ(x[i * ldb + m], b[i * ldb + m]);
    }
  }
}

TEST_F(CholeskyTest, SameBitsOnAllIsasAndThreads) {
  for (std::int64_t n : kSizes) {
    const Matrix h = hessian(n, 5);
    Matrix s = h, u = h, b(h.begin(), h.begin() + n);
    ASSERT_TRUE(cholesky(alone, Isa::scalar, n, s.data(), n));
    ASSERT_TRUE(gptq_factor(alone, Isa::scalar, n, u.data(), n));
    cholesky_solve(alone, Isa::scalar, n, s.data(), n, b.data(), 1, 1);
    for (Isa isa : available_isas()) {
      Matrix other = h, factor = h, x(h.begin(), h.begin() + n);
      ASSERT_TRUE(cholesky(shared, isa, n, other.data(), n));
      EXPECT_EQ(std::memcmp(other.data(), s.data(), s.size() * sizeof(float)), 0) << isa_name(isa) << " " << n;
      cholesky_solve(shared, isa, n, other.data(), n, x.data(), 1, 1);
      EXPECT_EQ(std::memcmp(x.data(), b.data(), b.size() * sizeof(float)), 0) << isa_name(isa) << " " << n;
      ASSERT_TRUE(gptq_factor(shared, isa, n, factor.data(), n));
      EXPECT_EQ(std::memcmp(factor.data(), u.data(), u.size() * sizeof(float)), 0) << isa_name(isa) << " " << n;
    }
  }
}

TEST_F(CholeskyTest, RefusesWhatIsNotPositiveDefinite) {
  for (std::int64_t n : {1, 20, 200}) {
    const Matrix h = hessian(n, 7);
    for (float bad : {0.0f, -1.0f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
      for (std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
        Matrix a = h, b = h;
        a[at * n + at] = b[at * n + at] = bad;
        EXPECT_FALSE(cholesky(shared, detect_isa(), n, a.data(), n)) << n << " " << bad;
        EXPECT_FALSE(gptq_factor(shared, detect_isa(), n, b.data(), n)) << n << " " << bad;
      }
    }
  }
}

}  // namespace
}  // namespace kedge
