#include "stats/intervals.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

double mean_of(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

Interval around(double mean, double standard_error, std::int64_t n, double confidence) {
  const double half = student_t_quantile(0.5 + confidence / 2, static_cast<double>(n - 1)) * standard_error;
  return {mean, mean - half, mean + half, standard_error, n};
}

Interval without_interval(double mean, std::int64_t n) {
  return {mean, mean, mean, std::numeric_limits<double>::quiet_NaN(), n};
}

}  // namespace

Interval mean_interval(std::span<const double> samples, double confidence) {
  KEDGE_CHECK(confidence > 0 && confidence < 1);
  const auto n = static_cast<std::int64_t>(samples.size());
  if (n == 0) return without_interval(std::numeric_limits<double>::quiet_NaN(), 0);
  const double mean = mean_of(samples);
  if (n == 1) return without_interval(mean, 1);
  double squares = 0;
  for (double sample : samples) squares += (sample - mean) * (sample - mean);
  const auto count = static_cast<double>(n);
  return around(mean, std::sqrt(squares / (count - 1) / count), n, confidence);
}

Interval ratio_interval(std::span<const double> numerators, std::span<const double> denominators, double confidence) {
  KEDGE_CHECK(numerators.size() == denominators.size() && confidence > 0 && confidence < 1);
  std::int64_t n = 0;  // clusters that say something: the others' residuals are 0 whatever is true
  double total = 0, weight = 0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    n += numerators[i] != 0 || denominators[i] != 0 ? 1 : 0;
    total += numerators[i];
    weight += denominators[i];
  }
  if (n == 0 || weight == 0) return without_interval(std::numeric_limits<double>::quiet_NaN(), n);
  const double ratio = total / weight;
  if (n == 1) return without_interval(ratio, 1);
  // var(R) = n / (n - 1) * sum (a_i - R b_i)^2 / (sum b)^2 (Cochran, Sampling Techniques, 3rd edition, 6.4 and 9A.4;
  // without the finite-population term). The residuals sum to zero.
  double squares = 0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    const double residual = numerators[i] - ratio * denominators[i];
    squares += residual * residual;
  }
  const auto count = static_cast<double>(n);
  return around(ratio, std::sqrt(count / (count - 1) * squares) / std::fabs(weight), n, confidence);
}

double quantile(std::vector<double> values, double q) {
  KEDGE_CHECK(q >= 0 && q <= 1);
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  if (below + 1 >= values.size()) return values.back();
  return values[below] + (position - static_cast<double>(below)) * (values[below + 1] - values[below]);
}

double gini(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  double sum = 0, ranked = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i];
    ranked += (2 * static_cast<double>(i + 1) - n - 1) * sorted[i];
  }
  return sum == 0 ? 0 : ranked / (n * sum);
}

double js_divergence(std::span<const double> a, std::span<const double> b) {
  KEDGE_CHECK(a.size() == b.size());
  double sum_a = 0, sum_b = 0;
  for (double x : a) sum_a += x;
  for (double x : b) sum_b += x;
  if (!(sum_a > 0) || !(sum_b > 0)) return std::numeric_limits<double>::quiet_NaN();
  double divergence = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double p = a[i] / sum_a, q = b[i] / sum_b, m = (p + q) / 2;
    if (p > 0) divergence += p / 2 * std::log(p / m);
    if (q > 0) divergence += q / 2 * std::log(q / m);
  }
  return std::max(divergence, 0.0);
}

}  // namespace kedge
