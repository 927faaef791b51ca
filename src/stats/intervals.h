// Means with 95 % intervals, paired comparisons, ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

struct Interval {
  double mean = 0, low = 0, high = 0;
  double standard_error = 0;
  std::int64_t n = 0;
};

/// Student-t interval of the mean of independent samples. A single sample has no interval: low = high = mean and
/// standard_error = NaN; callers print "n/a". No sample: all NaN.
Interval mean_interval(std::span<const double> samples, double confidence = 0.95);
/// Quantile of Student's t with `df` degrees of freedom.
double student_t_quantile(double p, double df);
/// P(T > t) of Student's t with `df` degrees of freedom, any sign of t.
double student_t_upper_tail(double t, double df);
/// Ratio-of-sums estimate (sum a / sum b) over clusters, with the interval of the linearised (delta-method) error:
/// token means over sequences of unequal length. One cluster: as mean_interval. All denominators 0: NaN.
Interval ratio_interval(std::span<const double> numerators, std::span<const double> denominators,
                        double confidence = 0.95);
/// Linear-interpolation quantile (numpy's default), q in [0, 1]; sorts a copy.
double quantile(std::vector<double> values, double q);
/// Of values >= 0: 0 where all are equal (or all 0), (n - 1) / n where one has everything.
double gini(std::span<const double> values);
/// Jensen-Shannon divergence of two histograms, natural log; they are normalised first. An empty one gives NaN.
double js_divergence(std::span<const double> a, std::span<const double> b);

}  // namespace kedge
