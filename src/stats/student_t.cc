#include <cmath>
#include <limits>

#include "base/check.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

// ln Gamma(x), without std::lgamma, which writes the global `signgam`. Lanczos, g = 7, 9 terms (relative error 1e-15).
double log_gamma(double x) {
  constexpr double kCoefficients[] = {0.99999999999980993,  676.5203681218851,     -1259.1392167224028,
                                      771.32342877765313,   -176.61502916214059,   12.507343278686905,
                                      -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7};
  if (x < 0.5) return std::log(M_PI / std::sin(M_PI * x)) - log_gamma(1 - x);
  x -= 1;
  double sum = kCoefficients[0];
  for (int i = 1; i < 9; ++i) sum += kCoefficients[i] / (x + i);
  const double t = x + 7.5;
  return 0.5 * std::log(2 * M_PI) + (x + 0.5) * std::log(t) - t + std::log(sum);
}

// Continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method.
double beta_fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  auto away_from_zero = [](double v) { return std::fabs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), result = d;
  for (int m = 1; m <= 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    result *= d * c;
    if (std::fabs(d * c - 1) < 1e-16) break;
  }
  return result;
}

// Regularized incomplete beta I_x(a, b); y = 1 - x, given on its own so that it may be tiny.
double incomplete_beta(double x, double y, double a, double b) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double front = std::exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * std::log(x) + b * std::log(y));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(x, a, b) / a;
  return 1 - front * beta_fraction(y, b, a) / b;
}

// P(T > t) for t >= 0.
double upper_tail(double t, double df) {
  const double square = t * t;
  return 0.5 * incomplete_beta(df / (df + square), square / (df + square), df / 2, 0.5);
}

}  // namespace

double student_t_upper_tail(double t, double df) {
  KEDGE_CHECK(df > 0);
  return t < 0 ? 1 - upper_tail(-t, df) : upper_tail(t, df);
}

double student_t_quantile(double p, double df) {
  KEDGE_CHECK(p > 0 && p < 1 && df > 0);
  if (p < 0.5) return -student_t_quantile(1 - p, df);
  if (p == 0.5) return 0;
  const double tail = 1 - p;
  double low = 0, high = 1;
  while (upper_tail(high, df) > tail && high < 1e300) high *= 2;
  // Bisection until the ends are neighbours, or all but.
  for (int i = 0; i < 200; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    (upper_tail(middle, df) > tail ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

}  // namespace kedge
