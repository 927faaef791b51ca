// Observes one wave of a block's inputs over all calibration sequences, those of other ranks included.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/moe_ffn/moe_ffn.h"
#include "ptq/layers/capture.h"
#include "ptq/layers/input_groups.h"
#include "ptq/layers/layer.h"
#include "ptq/layers/layer_pass.h"
#include "ptq/layers/overlay_source.h"
#include "ptq/statistics.h"

namespace kedge {

/// What a wave's observation works on.
struct Observation {
  const LayerInput& input;
  LayerPass& pass;
  const WeightSource& quantized_source;  ///< what is quantized so far
  std::size_t block = 0;
  const HiddenStates& original;   ///< the block's input on either path
  const HiddenStates& quantized;
  bool cross = false;             ///< InputStatistics::cross as well
  bool residual = false;          ///< InputStatistics::residual as well
};

/// Statistics of each group of the wave, in its order. An expert that sees fewer than recipe.min_expert_tokens tokens
/// gets them over all tokens where the recipe says so (ExpertFallback::all_tokens).
std::vector<InputStatistics> observe(const Observation& observation, const Wave& wave);

/// Tokens that each expert of a MoE block sees on the quantized path [E].
std::vector<std::int64_t> count_expert_tokens(const Observation& observation);

}  // namespace kedge
