// What keeps the experts of a layer in use.
//
// Softmax routers, means over the layers that have one; N tokens, E experts, k per token:
//   balance (Switch, arXiv 2101.03961 eq. 4): E sum_e f_e P_e; f_e: expert e's share of the N k choices, constant;
//     P_e: mean over tokens of softmax(z)_e. 1 when all are used alike. transformers' value is k times this one, with
//     f and P taken over all layers together.
//   z (ST-MoE, arXiv 2202.08906 eq. 5): mean over tokens of logsumexp(z)^2.
// Routing by reconstruction error (MCQSMoE): its logits are -err / T, so P of the balance loss is the mean softmin over
// all experts' errors. In place of z there is
//   reconstruction: mean over tokens and their selected experts of err, as normalized.
// Routers with a selection bias (DeepSeek-V3, arXiv 2412.19437 section 2.1.2), no loss: after a step the bias of an
// expert with more than the mean of the choices falls by the update speed, with fewer it rises.
#pragma once

#include <cstdint>
#include <vector>

#include "model/spec.h"
#include "twin/pass.h"

namespace kedge::training {

/// Choices by expert, [E] of each MoE layer, int64 on the device.
std::vector<at::Tensor> expert_counts(const ModelSpec& spec, const std::vector<twin::Routing>& routing);

struct RouterLosses {
  at::Tensor balance;         ///< scalars, undefined where no layer has the like
  at::Tensor z;               ///< of learned softmax routers
  at::Tensor reconstruction;  ///< of routing by error
};
RouterLosses router_losses(const ModelSpec& spec, const std::vector<twin::Routing>& routing,
                           const std::vector<at::Tensor>& counts);

/// bias [E] in place.
void update_selection_bias(const at::Tensor& bias, const at::Tensor& counts, double speed);

}  // namespace kedge::training
