// Ways to answer a multiple-choice question, each with a confidence.
//
//   ar                probabilities of the choices: softmax of ll_i / characters of choice i; the greatest is the
//   diffusion         the same of a masked-diffusion model's bounds (eval/diffusion_scorer.h)
//   answer self-consistency  `votes` answers are sampled and counted; a choice's share of the votes is its probability
//
// An answer is sampled token by token along the choices' tokens: at each place the model's probabilities of the tokens
// with which a choice still in question goes on, to the power 1 / temperature and normalised, give the next one. Where
// one choice ends and another goes on from the same beginning, the model has no probability for ending; those choices
// are drawn by their whole log-likelihoods, as are the choices of a task whose choices are contexts (one answer behind
// each). One generator per record, seeded by the seed and the record's number: limits and resumption change no vote.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/scorer.h"

namespace kedge {

struct Answer {
  std::size_t choice = 0;             ///< the first of the most probable
  double confidence = 0;              ///< its probability
  std::vector<double> probabilities;  ///< [choices]
};

/// lls and choices of one size > 0.
Answer answer_by_likelihood(std::span<const RequestScore> scores, std::span<const std::string> choices);

struct VoteOptions {
  std::int64_t votes = 20;
  double temperature = 0.7;  ///< > 0
  std::uint64_t seed = 0;
};
/// continuations: the tokens of each choice, in scores' order.
Answer answer_by_votes(std::span<const RequestScore> scores, std::span<const std::vector<std::int32_t>> continuations,
                       const VoteOptions& options, std::uint64_t record);

}  // namespace kedge
