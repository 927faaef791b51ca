// The weights of a ReconstructionMoeBlock under the names of a model:
//
//   <prefix>.gate.weight                    [E r, d]  all encoders; with the measure linear [E, d], a learned router
//   <prefix>.gate.decoder.weight            [E d, r]  untied only
//   <prefix>.gate.log_temperature           [1]       with a trained temperature only
//   <prefix>.experts.<e>.gate_proj.weight   [f, d]    gated only; up_proj [f, d], down_proj [d, f]
// or, in place of a projection's matrices, its stack <prefix>.experts.<projection> (docs/formats/anchor-delta.md).
#pragma once

#include <string>

#include "moe/reconstruction_moe.h"
#include "nn/weight_source.h"

namespace kedge {

/// prefix: "model.layers.0.mlp". Stacks run fused, plain matrices in fp32. Errors: the source's, the block's,
/// Error(bad_file) for a trained temperature that is not a positive number.
ReconstructionMoeBlock load_reconstruction_moe(const WeightSource& source, const std::string& prefix,
                                               const ReconstructionMoe& spec, const LoadOptions& options);

}  // namespace kedge
