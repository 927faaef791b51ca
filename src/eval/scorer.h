// Log-likelihoods of continuations, many at a time.
//
//   ll = sum_i log p(continuation_i | context, continuation_<i), natural log; greedy: each of them is its row's argmax
//
// Requests with one context share it: it is computed once, its continuations one behind another on the same keys and
// values (cut back in between). Contexts are taken in lexicographic order by several lanes, each with a state of its
// own, and a lane keeps what the next context has in common with the last, such as few-shot examples. Under consistent
// numerics neither order nor lanes change a bit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/session.h"

namespace kedge {

struct ScoreRequest {
  std::vector<std::int32_t> context, continuation;  ///< neither is empty
};

struct RequestScore {
  double loglikelihood = 0;
  bool is_greedy = false;
  std::vector<double> token_logprobs;  ///< [continuation]
  std::string text;                    ///< of generate_until: what the model wrote
  double standard_error = 0;           ///< of an estimated log-likelihood (eval/diffusion_scorer.h)
};

class LoglikelihoodScorer {
 public:
  /// memory: bytes that the lanes' keys and values may take.
  explicit LoglikelihoodScorer(const LoadedModel& model, std::size_t memory = std::size_t{1} << 30);
  ~LoglikelihoodScorer();

  /// Calls done(index, score) for each request as it is scored, in no particular order, and finished_round() when a
  /// group of them is complete. A context that does not fit loses its beginning. Error(usage): a continuation longer
  /// than the model's context. Error(interrupted).
  void score(std::span<const ScoreRequest> requests, const std::function<void(std::size_t, const RequestScore&)>& done,
             const std::function<void()>& finished_round);
  std::int64_t tokens_computed() const noexcept;  ///< rows that went through the model so far
  std::int64_t tokens_asked() const noexcept;     ///< rows that it would have taken without sharing

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
