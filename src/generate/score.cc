#include "generate/score.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "generate/sampler.h"
#include "kernels/softmax/softmax.h"

namespace kedge {
namespace {

// KL(p || q) = sum p_i ((p_logit_i - lse_p) - (q_logit_i - lse_q)). p comes from the softmax kernel, a stack buffer
// at a time: within a buffer p_i = softmax_i * exp(lse of the buffer - lse_p). Equal logits give differences of
// exactly 0, and so a sum of exactly 0.
double kl_divergence(std::span<const float> p, std::span<const float> q, double lse_p, double lse_q, Isa isa) noexcept {
  std::array<float, 1024> buffer;
  double sum = 0;
  for (std::size_t begin = 0; begin < p.size(); begin += buffer.size()) {
    const std::size_t n = std::min(buffer.size(), p.size() - begin);
    const double lse = log_sum_exp(p.data() + begin, static_cast<std::int64_t>(n), isa);
    if (lse == -std::numeric_limits<double>::infinity()) continue;
    std::copy_n(p.data() + begin, n, buffer.data());
    softmax(buffer.data(), 1, static_cast<std::int64_t>(n), isa);
    const double share = std::exp(lse - lse_p);
    double part = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (buffer[i] == 0) continue;  // 0 log 0 = 0, also where a logit is minus infinity
      part += buffer[i] * ((p[begin + i] - lse_p) - (q[begin + i] - lse_q));
    }
    sum += share * part;
  }
  return sum;
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, std::int32_t target, Isa isa) noexcept {
  return log_sum_exp(logits.data(), static_cast<std::int64_t>(logits.size()), isa) -
         logits[static_cast<std::size_t>(target)];
}

DistributionDiff compare_distributions(std::span<const float> p_logits, std::span<const float> q_logits,
                                       std::int32_t target, Isa isa) noexcept {
  const double lse_p = log_sum_exp(p_logits.data(), static_cast<std::int64_t>(p_logits.size()), isa);
  const double lse_q = log_sum_exp(q_logits.data(), static_cast<std::int64_t>(q_logits.size()), isa);
  DistributionDiff diff;
  diff.kld = kl_divergence(p_logits, q_logits, lse_p, lse_q, isa);
  diff.same_top = argmax(p_logits) == argmax(q_logits);
  diff.nll_p = lse_p - p_logits[static_cast<std::size_t>(target)];
  diff.nll_q = lse_q - q_logits[static_cast<std::size_t>(target)];
  diff.p_target = std::exp(-diff.nll_p);
  diff.q_target = std::exp(-diff.nll_q);
  return diff;
}

}  // namespace kedge
