// Loading the experts of a layer.
#pragma once

#include <string>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "nn/weight_source.h"

namespace kedge {

/// prefix: "model.layers.1.mlp.experts"; expert e is "<prefix>.<e>.{gate_proj,up_proj,down_proj}". Experts are packed
/// in parallel when threads is not null. Where the source has "<prefix>.gate_proj" or another projection as a stack, the
/// experts become those of kernels/anchor_ffn, and a projection that is none becomes fp32 in memory.
PackedExperts load_experts(const WeightSource& source, const std::string& prefix, const ExpertFfnDesc& desc,
                           const LoadOptions& options, ThreadPool* threads);

}  // namespace kedge
