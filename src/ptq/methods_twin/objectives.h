// Terms of an objective: how far a layer's output, or a router's logits, are from the original's.
//
// z, s: a router's logits and selection scores on the original path (s = z of softmax routers, sigmoid(z) + bias of
// sigmoid ones), z^, s^: on the quantized path, k experts per token; ranks by s among the experts of the groups that
// survived, S the first k of them. All are means over tokens.
//   mse       mean (h^ - h)^2 of the layer's output (AutoRound)
//   topk-mse  1/K sum over the first K of (z^ - z)^2; K: 2 k unless given (EAC-MoE, arXiv 2508.01625, eq. 5)
//   kl        sum over the first K of p (log p - log p^), p = softmax(z); K: k unless given (EAQuant, arXiv
//             2506.13329). Not a divergence: it can fall below 0.
//   kl-full   the same sum over all experts
//   value     sum w (z^ - z)^2 / sum w over the first M. w: 1; or the slope of the routing output, p (1 - p) of softmax
//             routers, sigmoid(z) (1 - sigmoid(z)) of sigmoid ones; or that times exp(-|s - b| / tau), b the middle of
//             the k-th and the (k+1)-th s. z, z^ less their mean where the router is softmax and centring is on
//   order     mean over pairs i before j in S of phi(m - (s^_i - s^_j)), m = min(gamma, s_i - s_j)
//   boundary  the same over i in S and j at the ranks k + 1 to M
// phi(x) = max(x, 0) or T log(1 + exp(x / T)), T a quarter of the mean boundary margin. M: 2 k unless given, and k + 1
// or more for boundary. gamma and tau are in mean boundary margins (mean of s_(k) - s_(k+1) over the calibration data).
// value, order and boundary are kedge's formulation of what the abstract of VSRAQ (arXiv 2606.05688) says; its
// equations are not public.
#pragma once

#include <optional>

#include "moe/router.h"
#include "ptq/tune.h"
#include "twin/pass.h"

namespace kedge {

/// One router's tokens in one step.
struct RouterPair {
  const RouterSpec& spec;
  const twin::Routing& original;  ///< without a graph
  const twin::Routing& quantized;
  double margin = 0;  ///< the mean boundary margin
};

at::Tensor output_error(const at::Tensor& original, const at::Tensor& quantized);
/// A scalar; undefined where the router gives the term nothing to do (no pair of experts).
at::Tensor routing_term(ObjectiveTerm term, const RouterPair& pair, const TuneParameters& parameters);

/// s_(k) - s_(k+1) of tokens that have both, [N']; undefined where k is all experts.
at::Tensor boundary_margins(const RouterSpec& spec, const twin::Routing& routing);

}  // namespace kedge
