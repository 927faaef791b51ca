#include "kernels/vec/math.h"

#include <bit>
#include <cstdint>
#include <limits>

namespace kedge::math {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer

// ln 2 = high + low; high has 32 significant bits, so that n * high is exact for |n| < 2^21.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// pi / 2 in parts of 26 bits (the last one full): n * part is exact for |n| < 2^27.
constexpr double kHalfPi1 = 0x1.921fb5p+0;
constexpr double kHalfPi2 = 0x1.110b46p-26;
constexpr double kHalfPi3 = 0x1.1a6263p-54;
constexpr double kHalfPi4 = 0x1.8a2e03707344ap-81;

double scale_by_power(double x, int n) noexcept {
  const int first = n / 2, second = n - first;
  const auto power = [](int e) { return std::bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52); };
  return x * power(first) * power(second);
}

/// (e^x - 1) / x by Taylor to x^12 on |x| <= ln2 / 2: the rest is below 2^-57.
double exp_series(double x) noexcept {
  double p = 1.0 / 6227020800.0;
  p = p * x + 1.0 / 479001600.0;
  p = p * x + 1.0 / 39916800.0;
  p = p * x + 1.0 / 3628800.0;
  p = p * x + 1.0 / 362880.0;
  p = p * x + 1.0 / 40320.0;
  p = p * x + 1.0 / 5040.0;
  p = p * x + 1.0 / 720.0;
  p = p * x + 1.0 / 120.0;
  p = p * x + 1.0 / 24.0;
  p = p * x + 1.0 / 6.0;
  p = p * x + 0.5;
  return p * x + 1.0;
}

/// Taylor series on |x| <= pi / 4: the first term left out is below 2^-56.
double sin_series(double x) noexcept {
  const double z = x * x;
  double p = -1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return x + x * (z * p);
}

double cos_series(double x) noexcept {
  const double z = x * x;
  double p = 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  return 1.0 - 0.5 * z + z * z * p;
}

/// cos(x) is sin(x + quarter * pi / 2) with quarter 1.
double sin_quarter(double x, std::int64_t quarter) noexcept {
  if (!(x <= 1e8 && x >= -1e8)) return kNaN;
  const double n = (x * 0.6366197723675814 + kShift) - kShift;
  const double r = (((x - n * kHalfPi1) - n * kHalfPi2) - n * kHalfPi3) - n * kHalfPi4;
  const std::int64_t quadrant = (static_cast<std::int64_t>(n) + quarter) & 3;
  const double value = (quadrant & 1) != 0 ? cos_series(r) : sin_series(r);
  return (quadrant & 2) != 0 ? -value : value;
}

}  // namespace

double exp(double x) noexcept {
  if (x != x) return x;
  if (x > 709.8) return kInfinity;
  if (x < -745.2) return 0.0;
  const double n = (x * 1.4426950408889634 + kShift) - kShift;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  return scale_by_power(1.0 + r * exp_series(r), static_cast<int>(n));
}

double log(double x) noexcept {
  if (!(x > 0.0)) return x == 0.0 ? -kInfinity : kNaN;
  if (x == kInfinity) return x;
  int exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= 0x1p54;
    exponent = -54;
  }
  const auto bits = std::bit_cast<std::uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716: 11 terms leave 2^-57.
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 0.0;
  for (int k = 23; k >= 3; k -= 2) p = (p + 1.0 / k) * z;
  const double n = exponent;
  return n * kLn2High + (2.0 * s + (2.0 * s * p + n * kLn2Low));
}

double sin(double x) noexcept { return sin_quarter(x, 0); }
double cos(double x) noexcept { return sin_quarter(x, 1); }

double pow(double x, double y) noexcept {
  if (!(x > 0.0)) return kNaN;
  if (y == 0.0) return 1.0;
  if (y == 1.0) return x;
  return exp(y * log(x));
}

}  // namespace kedge::math
