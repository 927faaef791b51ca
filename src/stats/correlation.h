// Correlation of paired values, with bootstrap intervals.
//
// Points that share a cause (repetitions of one cell of an experiment) are no independent evidence, so the bootstrap
// draws whole clusters: as many as there are, with replacement; percentile interval (Efron and Tibshirani, An
// Introduction to the Bootstrap, 13.3).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

/// Product-moment correlation; NaN for fewer than two points or a side without variance.
double pearson(std::span<const double> x, std::span<const double> y);
/// Ranks from 1; equal values share the mean of their ranks.
std::vector<double> average_ranks(std::span<const double> values);
/// pearson() of average_ranks().
double spearman(std::span<const double> x, std::span<const double> y);

struct Correlation {
  double value = 0, low = 0, high = 0;  ///< low, high: NaN below three clusters
  std::int64_t points = 0, clusters = 0;
};

struct BootstrapOptions {
  int resamples = 2000;
  std::uint64_t seed = 1;
  double confidence = 0.95;
};

using CorrelationFunction = double (*)(std::span<const double>, std::span<const double>);
/// clusters: a number for each point; points of equal numbers are drawn together. Draws in which f is NaN do not count.
/// The same arguments give the same bits.
Correlation bootstrap_correlation(CorrelationFunction f, std::span<const double> x, std::span<const double> y,
                                  std::span<const int> clusters, const BootstrapOptions& options = {});

}  // namespace kedge
