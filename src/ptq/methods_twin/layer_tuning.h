// One layer's tuning: targets from the original path, then sign-gradient steps on the quantized path's inputs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "ptq/layers/layer.h"
#include "ptq/methods_twin/objectives.h"
#include "ptq/methods_twin/routers.h"
#include "ptq/methods_twin/tuned_weights.h"
#include "twin/block.h"

namespace kedge {

/// Sequences of each step: all in a shuffled order, then shuffled anew; those that fill no step are left out.
class BatchSampler {
 public:
  BatchSampler(std::int64_t sequences, std::int64_t batch_size, std::uint64_t seed);
  std::vector<std::int64_t> next();

 private:
  void shuffle();
  Rng rng_;
  std::vector<std::int64_t> order_;
  std::size_t batch_, at_ = 0;
};

/// One term with one router in view.
struct TermValue {
  std::string name;   ///< "mse", "value of layer 3's router"
  at::Tensor value;   ///< of this step
  double weight = 0;  ///< of the objective, shared among the routers in view
  double scale = 0;   ///< weight / |first value|; 0: off
  double first = 0, best = 0;
};

class LayerTuning {
 public:
  LayerTuning(const LayerInput& input, const HiddenStates& original, const HiddenStates& quantized,
              const twin::Options& options);
  /// Error(usage): starved experts where the recipe refuses them. Error(unsupported): a loss that is not finite.
  LayerOutput run();

  // Its parts, for tests.
  void prepare();                                               ///< targets; before the first step
  at::Tensor loss(const std::vector<std::int64_t>& sequences);  ///< forward, all terms
  TunedWeights& weights() noexcept { return weights_; }
  const std::vector<TermValue>& terms() const noexcept { return terms_; }

 private:
  bool sees_same() const noexcept;
  bool sees_next() const noexcept;
  void check_coverage() const;
  void make_terms();
  void tune();
  void count_tuned(const twin::Routing& routing);
  LayerOutput output() const;
  at::Tensor sequences_of(const HiddenStates& states, const std::vector<std::int64_t>& sequences) const;

  const LayerInput& input_;
  const TuneParameters& parameters_;
  const HiddenStates& original_;
  const HiddenStates& quantized_;
  twin::Options options_;
  twin::Layer layer_;
  TunedWeights weights_;
  std::optional<NextRouter> next_;
  std::optional<RouterTargets> same_targets_, next_targets_;
  at::Tensor target_;                        ///< [S, T, H] on the host
  std::vector<std::int64_t> expert_tokens_;  ///< [E] on the original path
  std::vector<std::int64_t> tuned_tokens_;   ///< [E] in training
  std::vector<TermValue> terms_;
  bool started_ = false;  ///< the terms have their first values
  std::int64_t best_step_ = 0;
};

}  // namespace kedge
