// The columns that llama.cpp's users know: perplexity, ln ratio, KL divergence, same top token, delta p; natural log.
//
// Means are token means with errors over sequences (stats/intervals.h). Quantiles of the KL divergence are over all
// tokens; their intervals invert the distribution function at q -+ its error (Woodruff 1952), so they respect that
// tokens of one sequence are alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "generate/score.h"
#include "kedge/audit.h"
#include "stats/intervals.h"

namespace kedge {

AuditValue to_value(const Interval& interval);

class LanguageComparison {
 public:
  explicit LanguageComparison(std::int64_t seqlen);

  /// One sequence: a comparison per position; the last position has no target, so its p and nll are not read.
  void add_sequence(std::span<const DistributionDiff> positions);

  /// perplexity_original, perplexity_quantized, nll_original, nll_quantized, ln_ratio, kld, kld_median, kld_p90,
  /// kld_p99, kld_max, same_top, delta_p, delta_p_rms. only: the sequences that count; empty for all.
  AuditMetrics metrics(const std::vector<bool>& only = {}) const;
  std::vector<AuditPositionBin> kld_by_position() const;
  /// Fills the language fields of a sample.
  void describe(std::size_t sequence, AuditSample& sample) const;

 private:
  struct Sums {
    double nll_original = 0, nll_quantized = 0, delta_p = 0, delta_p_squared = 0;  ///< over targets
    double kld = 0, same_top = 0;                                                  ///< over tokens
    std::int64_t tokens = 0, targets = 0;
    std::vector<double> kld_values;  ///< [tokens]
  };
  std::vector<const Sums*> selected(const std::vector<bool>& only) const;

  std::int64_t seqlen_;
  std::vector<Sums> sequences_;
};

}  // namespace kedge
