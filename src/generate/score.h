// Log-likelihoods from logits. All rows: vocab_size values; targets inside; both distributions of one size.
#pragma once

#include <cstdint>
#include <span>

#include "base/cpu.h"

namespace kedge {

/// -log p(target) of one row of logits [vocab], natural log.
double negative_log_likelihood(std::span<const float> logits, std::int32_t target, Isa isa) noexcept;

/// Comparison of two next-token distributions p (original) and q (quantized).
struct DistributionDiff {
  double kld = 0;         ///< KL(p || q), natural log; exactly 0 for equal logits
  bool same_top = false;  ///< equal argmax (lower index wins a tie)
  double p_target = 0, q_target = 0;
  double nll_p = 0, nll_q = 0;
};
DistributionDiff compare_distributions(std::span<const float> p_logits, std::span<const float> q_logits,
                                       std::int32_t target, Isa isa) noexcept;

}  // namespace kedge
