// Log-likelihoods by a masked-diffusion language model, which fills in masked tokens instead of predicting the next.
//
// A bound from below (LLaDA, arXiv 2502.09992, eq. 6), by Monte Carlo: of an answer's L tokens behind their prompt, which
// is never masked, l are masked, l uniform in 1..L, which ones uniform too;
//   ll = mean over samples of (L / l) sum over masked i of ln p(x_i | prompt, answer with its masks)
// with the standard error of that mean. An answer of one token has but one mask: it is exact. greedy: with all of the
// answer masked, each token is its row's argmax.
// Samples are drawn from (seed, the request's tokens): order, ranks and resumption change nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "eval/scorer.h"

namespace kedge {

class DiffusionScorer {
 public:
  /// model: spec().is_masked_diffusion(). samples > 0.
  DiffusionScorer(const LoadedModel& model, std::int64_t samples, std::uint64_t seed);
  ~DiffusionScorer();

  /// As LoglikelihoodScorer::score. token_logprobs stays empty.
  void score(std::span<const ScoreRequest> requests, const std::function<void(std::size_t, const RequestScore&)>& done,
             const std::function<void()>& finished_round);
  std::int64_t tokens_computed() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
