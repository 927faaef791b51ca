// The layer routed by reconstruction error, differentiable: the twin of moe/reconstruction_moe.h, formulas there.
//
// Gradients reach encoders and decoders through the softmin weights, through the reconstructions, and through
// `probabilities` and `errors`, which losses read; the choice is constant. Experts run on the rows they got.
#pragma once

#include "moe/reconstruction_moe.h"
#include "twin/pass.h"
#include "twin/scope.h"
#include "twin/tensor.h"

namespace kedge::twin {

struct ReconstructionMoeTensors {
  Tensor encoder;         ///< [E, r, d]
  Tensor decoder;         ///< [E, d, r]; undefined when tied
  Tensor gate, up, down;  ///< [E, f, d], [E, f, d], [E, d, f]; undefined unless the spec has them
  Tensor temperature;     ///< one value, when it is trained; undefined: the spec's
};

struct ErrorRouted {
  Tensor errors;         ///< [N, E]; not cut at 0, unlike the engine's
  Tensor expert_ids;     ///< [N, slots] int64, ascending error
  Tensor weights;        ///< [N, slots], as applied
  Tensor probabilities;  ///< [N, E]: softmin over all experts, P of the balance loss
  Tensor y;              ///< [N, d]
};

/// Errors alone. x: [N, d]. By the same form as the engine (error_path): the Stiefel form is the error only for
/// encoders on the manifold, and its gradient is right along the manifold.
Tensor reconstruction_errors(const ErrorRouterSpec& spec, const ReconstructionMoeTensors& w, const Tensor& x);
ErrorRouted reconstruction_moe(const ReconstructionMoe& spec, const ReconstructionMoeTensors& w, const Tensor& x);

/// The layer in a model, on the weights that moe/reconstruction_weights.h names below scope's prefix. x: [N, d] ->
/// [N, d]. The router is fp32 at least, as all routers; experts are of the compute type.
Tensor routed_by_error(const ReconstructionMoe& spec, const Scope& scope, const Tensor& x, Routing& routing);

}  // namespace kedge::twin
