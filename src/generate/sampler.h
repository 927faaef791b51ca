// Sampling of the next token from logits, with transformers' meaning and order of the filters:
//   logits / temperature -> top-k (ties with the k-th stay) -> top-p (the smallest set, by descending probability,
//   whose mass reaches top_p) -> min-p (probability >= min_p * the highest) -> draw from what is left.
// At least one token always stays. Equal seeds, parameters and logits give equal tokens on any machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/cpu.h"
#include "base/rng.h"

namespace kedge {

struct SamplingParams {
  float temperature = 0.0f;  ///< 0: greedy (the lower id wins a tie); the filters then have no effect
  std::int32_t top_k = 0;    ///< 0: off
  float top_p = 1.0f;        ///< in (0, 1]
  float min_p = 0.0f;        ///< in [0, 1]
  std::uint64_t seed = 0;
};

/// The index of the highest logit, the lowest of equal ones. NaN counts as minus infinity.
std::int32_t argmax(std::span<const float> logits) noexcept;

class Sampler {
 public:
  /// Error(usage) for values out of range. isa: for the softmax; its bits do not depend on it.
  Sampler(const SamplingParams& params, std::int64_t vocab_size, Isa isa = Isa::scalar);
  /// logits: [vocab_size]. No allocation.
  std::int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    std::int32_t id;
    float probability;
  };
  void keep_top_k();
  void set_probabilities();
  void keep_top_p();
  void keep_min_p();
  std::int32_t draw();

  SamplingParams params_;
  Isa isa_;
  Rng rng_;
  std::vector<Candidate> candidates_;  // room for the vocabulary
  std::vector<float> scratch_;         // [vocab]
};

}  // namespace kedge
