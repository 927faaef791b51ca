// Attention and latent attention, differentiable: the formulas of nn/attention.h and nn/mla.h without a cache.
#pragma once

#include "nn/mixers.h"
#include "twin/rope.h"
#include "twin/scope.h"

namespace kedge::twin {

/// x: [B, T, H] -> [B, T, H]. mask as Pass::mask. scope: "model.layers.0.self_attn."; norm_eps: of q_norm and k_norm.
/// angles must be reserved for T.
Tensor attention(const Attention& spec, const Scope& scope, const RopeAngles& angles, double norm_eps, const Tensor& x,
                 const Tensor& mask);
Tensor latent_attention(const Mla& spec, const Scope& scope, const RopeAngles& angles, const Tensor& x,
                        const Tensor& mask);

}  // namespace kedge::twin
