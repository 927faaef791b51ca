// The MoE layer, differentiable: the routers of moe/router.h, experts on the tokens they got, the shared expert.
//
// Each expert runs once on its own rows (pairs sorted by expert), never on all tokens. Gradients reach the router
// through the weights of the chosen; the choice is constant.
#pragma once

#include "moe/moe_spec.h"
#include "twin/scope.h"

namespace kedge::twin {

/// logits: [N, E]; bias: [E], undefined without selection bias. layer and input stay unset. fp64 stays, all else
/// becomes fp32.
Routing route(const RouterSpec& spec, const Tensor& logits, const Tensor& bias);

/// The router on x [N, H] with scope's ("model.layers.1.mlp.") weights.
Routing route(const Moe& spec, const Scope& scope, const Tensor& x);
/// y [N, H] of a routing made by route().
Tensor experts(const Moe& spec, const Scope& scope, const Routing& routing);

}  // namespace kedge::twin
