// Expert-balanced choice of calibration sequences: so many of a pool that rare experts get tokens, too.
//
// An expert's Hessian or loss is a mean over the tokens that it sees, so its variance goes as 1 / tokens. With
// c_le(A) the tokens that expert e of MoE layer l gets from the chosen sequences A, the choice minimizes
//     F(A) = sum over l, e of  1 / (tau + c_le(A)),    tau = max(1, m / 10),
//     m = mean of the pool's counts over sequences, layers and experts,
// greedily: next is the sequence that lowers F most, the lower index on ties. tau keeps a stray token from counting as
// an expert served; with m instead of m / 10 the rarest experts of a trained model (16 experts, top-2) got fewer
// tokens. F's decrease is monotone and submodular in A, so greedy reaches 1 - 1/e of the best decrease (Nemhauser,
// Wolsey, Fisher 1978). Additions, multiplications and divisions only: the same choice on every machine. MoEQuant
// (arXiv 2505.03804) balances experts by sampling text from the model; this chooses among texts that are there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "nn/probe.h"
#include "ptq/calibration_data.h"

namespace kedge {

/// Tokens per expert: of S sequences in L MoE layers of E experts each.
struct ExpertCounts {
  std::vector<int> layers;           ///< [L] layer numbers, ascending
  std::int64_t sequences = 0;        ///< S
  std::int64_t num_experts = 0;      ///< E
  std::vector<std::int32_t> counts;  ///< [S, L, E]

  std::int64_t cells() const noexcept { return static_cast<std::int64_t>(layers.size()) * num_experts; }
  std::span<const std::int32_t> of(std::int64_t sequence) const;  ///< [L, E]
  /// [L, E], summed over these sequences.
  std::vector<std::int64_t> total(std::span<const std::int64_t> chosen) const;
};

/// Of a set of sequences, over all layers and experts.
struct ExpertBalance {
  std::int64_t least = 0;   ///< fewest tokens of any expert
  std::int64_t unseen = 0;  ///< experts without a token
  double entropy = 0;       ///< mean over layers of -sum p ln p / ln E: 1 is even
};

/// min(nsamples, S) different indices in the order of choice. Error(usage): nsamples below 1.
std::vector<std::int64_t> choose_balanced(const ExpertCounts& counts, std::int64_t nsamples);

ExpertBalance expert_balance(const ExpertCounts& counts, std::span<const std::int64_t> chosen);

/// Counts of what passes: each pass's rows are whole sequences, or parts, one after the other.
class ExpertCounter : public ForwardProbe {
 public:
  ExpertCounter(const ModelSpec& spec, std::int64_t sequences);
  /// Before each pass: the sequence that each of its segments belongs to, and the segment's tokens.
  void set_segments(std::vector<std::pair<std::int64_t, std::int64_t>> sequence_and_tokens);
  const ExpertCounts& counts() const noexcept { return counts_; }

  unsigned sites() const noexcept override { return static_cast<unsigned>(Site::routing); }
  void routing(int layer, const RoutingDecision& decision) override;

 private:
  ExpertCounts counts_;
  std::vector<std::pair<std::int64_t, std::int64_t>> segments_;
};

/// A pass of the model over all sequences, several at a time. Error(unsupported): a model without MoE layers.
ExpertCounts count_experts(const DecoderModel& model, ThreadPool& threads, const CalibrationData& data);

}  // namespace kedge
