// What a forward pass takes beside the hidden states, and what it shows of each MoE layer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "twin/tensor.h"

namespace kedge::twin {

/// The tensor to compute with for a parameter, by its canonical full name: the parameter itself, or what a tuner puts
/// in its place (a fake-quantized weight). Called once per parameter and pass; an expert's only when tokens reach it.
using WeightFunction = std::function<Tensor(const std::string& name)>;

/// The routing of N = B * T tokens in one MoE layer, as RoutingDecision (nn/probe.h). input, logits, scores and
/// weights carry gradients; the choice itself has none.
struct Routing {
  int layer = -1;
  Tensor input;       ///< [N, H] the normed input of the MoE layer
  Tensor logits;      ///< [N, E] z, at least fp32
  Tensor scores;      ///< [N, E] what selection ranks: z (softmax), sigmoid(z) + bias (sigmoid); no group excluded
  Tensor candidates;  ///< [N, E] bool: in a group that survived; undefined where all groups do
  Tensor expert_ids;  ///< [N, k] int64, by descending score, the lower index first on ties
  Tensor weights;     ///< [N, k] as applied
  Tensor errors;      ///< [N, E] of routing by reconstruction error, as normalized; else undefined

  /// scores with -infinity outside the candidates: RoutingDecision's.
  Tensor ranked_scores() const;
};

struct Pass {
  /// [B, T] bool, true for tokens, false for padding on either side; undefined: no padding. Padding is never attended
  /// to. Its own rows still run, through the experts too: leave them out of losses and counts.
  Tensor mask;
  std::vector<Routing>* routing = nullptr;  ///< appended to, MoE layer by MoE layer
};

}  // namespace kedge::twin
