// How far confidences can be trusted. confidence[i] in [0, 1] that answer i is right; correct[i] 0 or 1; n of each.
//
//   ECE       sum over bins of n_b / n * |mean correct - mean confidence|     (Naeini et al. 2015; Guo et al. 2017)
//   Brier     mean (confidence - correct)^2, and over all classes mean sum_k (p_k - [k is right])^2    (Brier 1950)
//   AUROC     P(confidence of a right answer > that of a wrong one) + 1/2 P(equal)          (Mann-Whitney)
//   AURC      mean over k = 1..n of the share of wrong answers among the k most confident; answers of equal confidence
//             count as in a random order, on average                          (Geifman, Uziel, El-Yaniv 2019)
//
// NaN where there is nothing to measure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

enum class Binning {
  equal_width,  ///< bins ((b - 1) / bins, b / bins]; 0 belongs to the first
  equal_mass,   ///< edges are quantiles of the confidences; equal confidences share a bin
};
double expected_calibration_error(std::span<const double> confidence, std::span<const int> correct, int bins,
                                  Binning binning);
double brier_score(std::span<const double> confidence, std::span<const int> correct);
/// probabilities[i]: over the classes of sample i; gold[i] an index into them.
double multiclass_brier_score(std::span<const std::vector<double>> probabilities, std::span<const std::size_t> gold);
double auroc(std::span<const double> confidence, std::span<const int> correct);
double aurc(std::span<const double> confidence, std::span<const int> correct);

/// Confident-Wrong@threshold: wrong answers among those with confidence >= threshold, over the latter.
struct ConfidentWrong {
  std::int64_t wrong = 0, confident = 0;
  double rate() const noexcept;
};
ConfidentWrong confident_wrong(std::span<const double> confidence, std::span<const int> correct, double threshold);

}  // namespace kedge
