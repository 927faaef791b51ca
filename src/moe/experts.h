// Loading the experts of a layer.
#pragma once

#include <string>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "nn/weight_source.h"

namespace kedge {

/// prefix: "model.layers.1.mlp.experts"; expert e is "<prefix>.<e>.{gate_proj,up_proj,down_proj}". Experts are packed
/// in parallel when threads is not null.
PackedExperts load_experts(const WeightSource& source, const std::string& prefix, const ExpertFfnDesc& desc,
                           const LoadOptions& options, ThreadPool* threads);

}  // namespace kedge
