#include "kernels/vec/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kedge {
namespace {

TEST(Math, LogFollowsLibm) {
  Rng rng(2);
  for (int i = 0; i < 200'000; ++i) {
    const double x = std::exp(1400.0 * (rng.uniform() - 0.5));
    EXPECT_NEAR(math::log(x), std::log(x), 4e-16 * std::max(1.0, std::fabs(std::log(x)))) << x;
  }
  for (double d : {1e-3, 1e-8, -1e-3, -1e-8})
    EXPECT_NEAR(math::log(1 + d), std::log(1 + d), 4e-16 * std::fabs(d) + 1e-24);
  EXPECT_EQ(math::log(1.0), 0.0);
  EXPECT_EQ(math::log(0.0), -std::numeric_limits<double>::infinity());
  EXPECT_NEAR(math::log(5e-324), std::log(5e-324), 1e-12);
  EXPECT_TRUE(std::isnan(math::log(-1.0)));
}

TEST(Math, ExpFollowsLibm) {
  Rng rng(3);
  for (int i = 0; i < 200'000; ++i) {
    const double x = 1400.0 * (rng.uniform() - 0.5);
    EXPECT_NEAR(math::exp(x) / std::exp(x), 1.0, 1e-15) << x;
  }
  EXPECT_EQ(math::exp(0.0), 1.0);
  EXPECT_EQ(math::exp(-1000.0), 0.0);
  EXPECT_EQ(math::exp(1000.0), std::numeric_limits<double>::infinity());
  EXPECT_GT(math::exp(-740.0), 0.0);
}

TEST(Math, SinAndCosFollowLibmToLargeAngles) {
  Rng rng(4);
  for (double range : {1.0, 100.0, 1e4, 1e6, 1e8}) {
    for (int i = 0; i < 100'000; ++i) {
      const double x = range * (2 * rng.uniform() - 1);
      EXPECT_NEAR(math::sin(x), std::sin(x), 4e-16) << x;
      EXPECT_NEAR(math::cos(x), std::cos(x), 4e-16) << x;
      // Rounded to fp32 the two agree but for ties: at most one ulp.
      const auto a = static_cast<float>(math::cos(x)), b = static_cast<float>(std::cos(x));
      EXPECT_LE(std::fabs(a - b), std::fabs(b) * 0x1p-23f) << x;
    }
  }
  EXPECT_EQ(math::cos(0.0), 1.0);
  EXPECT_EQ(math::sin(0.0), 0.0);
  EXPECT_TRUE(std::isnan(math::sin(std::numeric_limits<double>::infinity())));
  EXPECT_TRUE(std::isnan(math::cos(std::nan(""))));
}

TEST(Math, SinNearMultiplesOfPi) {
  for (int n = 1; n < 3'000'000; n = n * 3 + 1) {
    const double x = static_cast<float>(n * 3.14159265358979323846);
    EXPECT_NEAR(math::sin(x) / std::sin(x), 1.0, 1e-8) << x;
  }
}

TEST(Math, PowFollowsLibm) {
  for (double base : {1e4, 5e5, 1e6, 8e6, 150000.0}) {
    for (int i = 0; i <= 128; ++i) {
      const double y = -i / 128.0;
      EXPECT_NEAR(math::pow(base, y) / std::pow(base, y), 1.0, 8e-15);
    }
  }
  EXPECT_EQ(math::pow(3.7, 0.0), 1.0);
  EXPECT_EQ(math::pow(3.7, 1.0), 3.7);
  EXPECT_TRUE(std::isnan(math::pow(-2.0, 0.5)));
}

}  // namespace
}  // namespace kedge
