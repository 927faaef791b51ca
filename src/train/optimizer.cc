#include "train/optimizer.h"

#include <cmath>
#include <optional>

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/linalg_vector_norm.h>

namespace kedge::training {
namespace {

// K. Jordan's: the steepest slope at zero among quintics that keep [0, 1] within bounds.
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
constexpr int kNewtonSchulzSteps = 5;
constexpr double kNormEps = 1e-7;
// arXiv 2502.16982 section 2.2: AdamW's steps have about this root mean square.
constexpr double kAdamRms = 0.2;

}  // namespace

at::Tensor newton_schulz(const at::Tensor& x) {
  const bool tall = x.size(1) > x.size(2);
  at::Tensor y = tall ? x.transpose(1, 2) : x;
  y = y / at::linalg_vector_norm(y, 2, at::IntArrayRef({1, 2}), /*keepdim=*/true).clamp_min(kNormEps);
  for (int i = 0; i < kNewtonSchulzSteps; ++i) {
    const at::Tensor gram = at::bmm(y, y.transpose(1, 2));
    y = at::baddbmm(y, at::baddbmm(gram, gram, gram, kB, kC), y, kA, 1.0);
  }
  return tall ? y.transpose(1, 2) : y;
}

Optimizer::Optimizer(Weights& weights, const OptimizerSettings& settings) : weights_(weights), settings_(settings) {
  for (const UpdateRule rule : kUpdateRules) {
    const WeightGroup& group = weights.group(rule);
    if (!group.value.defined()) continue;
    Moments& moments = moments_[static_cast<std::size_t>(rule)];
    moments.first = at::zeros_like(group.value);
    if (rule != UpdateRule::muon) moments.second = at::zeros_like(group.value);
  }
}

void Optimizer::step(double lr, std::int64_t step, double gradient_scale) {
  const at::NoGradGuard no_gradients;
  muon(lr, gradient_scale);
  adamw(UpdateRule::decayed, lr, step, gradient_scale, settings_.weight_decay);
  adamw(UpdateRule::plain, lr, step, gradient_scale, 0.0);
}

void Optimizer::adamw(UpdateRule rule, double lr, std::int64_t step, double gradient_scale, double decay) {
  WeightGroup& group = weights_.group(rule);
  if (!group.value.defined()) return;
  const Moments& moments = moments_[static_cast<std::size_t>(rule)];
  const at::Tensor count = at::full({}, static_cast<double>(step), group.value.options());
  std::optional<at::Tensor> scale;
  if (gradient_scale != 1) scale = at::full({}, gradient_scale, group.value.options());
  at::_fused_adamw_({group.value}, {group.gradient}, {moments.first}, {moments.second}, {}, {count}, lr,
                    settings_.beta1, settings_.beta2, decay, settings_.eps, /*amsgrad=*/false, /*maximize=*/false,
                    scale);
}

void Optimizer::muon(double lr, double gradient_scale) {
  WeightGroup& group = weights_.group(UpdateRule::muon);
  if (!group.value.defined()) return;
  at::Tensor& momentum = moments_[static_cast<std::size_t>(UpdateRule::muon)].first;
  if (gradient_scale != 1) group.gradient.div_(gradient_scale);
  momentum.lerp_(group.gradient, 1 - settings_.momentum);
  const at::Tensor ahead = group.gradient.lerp(momentum, settings_.momentum);
  group.value.mul_(1 - lr * settings_.weight_decay);
  for (const TrainedWeight& weight : weights_.trained()) {
    if (weight.rule != UpdateRule::muon) continue;
    const std::int64_t out = weight.shape[weight.shape.size() - 2], in = weight.shape.back();
    const std::int64_t size = num_elements(weight.shape);
    const at::Tensor step = newton_schulz(ahead.narrow(0, weight.offset, size).view({-1, out, in}));
    const double length = kAdamRms * std::sqrt(static_cast<double>(std::max(out, in)));
    group.value.narrow(0, weight.offset, size).view({-1, out, in}).add_(step, -lr * length);
  }
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const TrainedWeight& weight : weights_.trained()) {
    const Moments& moments = moments_[static_cast<std::size_t>(weight.rule)];
    const auto view_of = [&](const at::Tensor& flat) {
      return flat.narrow(0, weight.offset, num_elements(weight.shape)).view(weight.shape);
    };
    if (weight.rule == UpdateRule::muon) {
      out.emplace_back(weight.name + ".momentum_buffer", view_of(moments.first));
    } else {
      out.emplace_back(weight.name + ".exp_avg", view_of(moments.first));
      out.emplace_back(weight.name + ".exp_avg_sq", view_of(moments.second));
    }
  }
  return out;
}

}  // namespace kedge::training
