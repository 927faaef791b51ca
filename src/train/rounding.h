// What the experts' stacks become once training rounds them: the weights that the stored model will have, with
// gradients straight through the rounding (twin/anchored.h, quant/anchor_delta.h).
#pragma once

#include <map>
#include <string>

#include "quant/anchor_delta.h"
#include "train/weights.h"
#include "twin/pass.h"

namespace kedge::training {

/// "model.layers.0.mlp.experts.up_proj.weight" -> how it is stored; empty for a spec without shared anchors.
std::map<std::string, AnchorDeltaArgs> anchored_stacks(const ModelSpec& spec);
/// The weights' own values, but those of anchored stacks rounded. All must outlive the function.
twin::WeightFunction rounded_weights(const twin::Parameters& parameters,
                                     const std::map<std::string, AnchorDeltaArgs>& stacks);
/// The stacks as they are stored, by "model.layers.0.mlp.experts.up_proj". Error(bad_file) as encode_anchor_delta.
std::map<std::string, AnchorDelta> encode_stacks(const ModelSpec& spec, const Weights& weights);

}  // namespace kedge::training
