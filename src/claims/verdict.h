// From the samples of a run to an effect with its interval, and from that to a verdict.
//
//   upheld        the hypothesis "the effect is not on the claimed side of threshold" is rejected
//   refuted       the hypothesis "the effect is not beyond refuted_at" is rejected
//   inconclusive  neither: the measurement does not decide it
//   not run       there is no measurement, and the record says why
// each at the one-sided level (1 - confidence) / 2, so that without a family upheld means: the two-sided interval lies
// on the claimed side. In a family of m registered claims p values are Holm's, those that did not run among the m.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "claims/claim.h"

namespace kedge {

/// One measurement. values by name: "value"; "subject" and "baseline", measured as a pair; "confidence" and "correct".
struct ClaimSample {
  std::string label;         ///< "seed 1", "window 2, pair 3", "hellaswag 17"
  std::int64_t cluster = 0;  ///< samples of one cluster are not independent of each other
  std::map<std::string, double> values;
};

struct Estimate {
  double effect = 0, low = 0, high = 0;    ///< low, high: NaN where there is no interval; of "every" the extremes
  double scale_mean = 0, scale_error = 0;  ///< mean and standard error where they are symmetric (logarithms of ratios)
  std::int64_t n = 0, clusters = 0;
  double p_upheld = 1, p_refuted = 1;  ///< of the two hypotheses above, one-sided
};

enum class Verdict { not_run, refuted, inconclusive, upheld };
const char* verdict_name(Verdict) noexcept;  ///< "not run", "refuted", "inconclusive", "upheld"

/// The values that the claim's samples must carry: {"value"}, {"subject", "baseline"} or {"confidence", "correct"}.
std::vector<std::string> sample_values(const Claim& claim);
/// Is it the metric of all records together (src/stats/confidence.h), not a mean of samples' values?
bool is_confidence_metric(const std::string& metric) noexcept;

/// The effect of a single sample, NaN where it has none (a record does not have an AUROC): for tables and plots.
double sample_effect(const Claim& claim, const ClaimSample& sample);

/// No samples: NaN and p = 1. A value that is not finite, or not positive in a ratio: NaN and p = 1.
Estimate estimate(const Claim& claim, std::span<const ClaimSample> samples);

struct Judgement {
  Verdict verdict = Verdict::not_run;
  double p_upheld = 1, p_refuted = 1;  ///< adjusted for the family
};
/// estimates[i] belongs to claims[i]; null: not run.
std::vector<Judgement> judge(std::span<const Claim> claims, std::span<const Estimate* const> estimates);

}  // namespace kedge
