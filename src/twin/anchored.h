// Differentiable weights on a manifold, with a shared anchor and quantized deltas: the twin of quant/anchor_delta.h.
//
//   W_e = R(q(A) + q(D_e))     q rounds as the file format does; its gradient is the identity (straight through)
//
// Stacks [E, N, K] throughout. The gradient through R is that of the composed function; for a step on the manifold it
// is still to be projected to the tangent space.
#pragma once

#include "quant/anchor_delta.h"
#include "twin/tensor.h"

namespace kedge::twin {

/// w [..., N, K] -> rows on the manifold. norms [..., N] of the sphere's rows, undefined: 1.
/// The polar factor comes from Newton-Schulz steps (X <- 3/2 X - 1/2 X X^T X), whose gradient exists where singular
/// values are equal, as they are on the manifold; eigenvectors have none there. Error(bad_file) where the steps do not
/// converge: rows that are linearly dependent, or nearly.
Tensor retract(Manifold manifold, const Tensor& w, const Tensor& norms = {});

/// Rounded to `bits` in groups along K, symmetric, scales in fp16, as quantize_rtn does; straight through.
Tensor fake_quantize(const Tensor& w, int bits, std::int64_t group);

/// anchor [N, K], deltas [E, N, K] -> W [E, N, K]. With quantized = false, nothing is rounded (the warm-up of
/// training).
Tensor anchored_weights(const AnchorDeltaArgs& args, const Tensor& anchor, const Tensor& deltas, const Tensor& norms,
                        bool quantized);

/// w [E, N, K], rows on the manifold with norms of 1 -> the weights that encode_anchor_delta stores for it: the anchor
/// is the experts' mean in its type, each delta is rounded against the anchor as stored. Straight through.
Tensor encoded_weights(const AnchorDeltaArgs& args, const Tensor& w);

}  // namespace kedge::twin
