// Where and in which types a twin computes.
#pragma once

#include <string_view>

#include "twin/tensor.h"

namespace kedge::twin {

struct Options {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;          ///< parameters, residual stream, norms, rope; the router never below fp32
  at::ScalarType compute_dtype = at::kFloat;  ///< matrix products and attention: kBFloat16 halves what they keep
  /// A pass asks for a projection of all experts at once, "model.layers.0.mlp.experts.gate_proj.weight" [E, out, in],
  /// instead of expert by expert: fewer, larger nodes, for training.
  bool stacked_experts = false;
};

/// "cpu", "cuda", "cuda:1", or "auto": the first GPU where there is one. Error(usage) for another word, Error
/// (unsupported) for a GPU that libtorch does not see.
at::Device parse_device(std::string_view name);

/// On a GPU some of libtorch's kernels add in any order unless asked not to: for the whole process, asks for those that
/// repeat to the bit. Before the first computation there.
void prefer_repeatable_kernels(const at::Device& device);

}  // namespace kedge::twin
