#include "train/router_losses.h"

#include <ATen/ops/logsumexp.h>

namespace kedge::training {
namespace {

void add(at::Tensor& sum, const at::Tensor& value, std::int64_t& count) {
  sum = sum.defined() ? sum + value : value;
  ++count;
}

}  // namespace

std::vector<at::Tensor> expert_counts(const ModelSpec& spec, const std::vector<twin::Routing>& routing) {
  std::vector<at::Tensor> out;
  for (const twin::Routing& r : routing) {
    out.push_back(at::bincount(r.expert_ids.flatten(), {}, spec.router(r.layer).num_experts));
  }
  return out;
}

RouterLosses router_losses(const ModelSpec& spec, const std::vector<twin::Routing>& routing,
                           const std::vector<at::Tensor>& counts) {
  RouterLosses out;
  std::int64_t layers = 0, with_logits = 0, with_errors = 0;
  for (std::size_t i = 0; i < routing.size(); ++i) {
    const RouterSpec router = spec.router(routing[i].layer);
    if (router.scoring_func != ScoringFunc::softmax) continue;
    const at::Tensor& logits = routing[i].logits;
    const at::Tensor share = counts[i].to(logits.scalar_type()) / counts[i].sum();
    const at::Tensor probability = at::softmax(logits, -1).mean(at::IntArrayRef({0}));
    const at::Tensor balance = (share * probability).sum() * static_cast<double>(router.num_experts);
    add(out.balance, balance, layers);
    if (routing[i].errors.defined()) {
      add(out.reconstruction, routing[i].errors.gather(-1, routing[i].expert_ids).mean(), with_errors);
    } else {
      add(out.z, at::logsumexp(logits, at::IntArrayRef({1})).square().mean(), with_logits);
    }
  }
  if (layers > 0) out.balance = out.balance / static_cast<double>(layers);
  if (with_logits > 0) out.z = out.z / static_cast<double>(with_logits);
  if (with_errors > 0) out.reconstruction = out.reconstruction / static_cast<double>(with_errors);
  return out;
}

void update_selection_bias(const at::Tensor& bias, const at::Tensor& counts, double speed) {
  const at::NoGradGuard no_gradients;
  const at::Tensor load = counts.to(bias.scalar_type());
  bias.add_((load.mean() - load).sign(), speed);
}

}  // namespace kedge::training
