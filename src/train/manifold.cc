#include "train/manifold.h"

#include <cstdlib>

#include <fmt/format.h>

#include "base/check.h"
#include "twin/anchored.h"

namespace kedge::training {
namespace {

TrainedWeight* find(Weights& weights, const std::string& name) {
  for (TrainedWeight& weight : weights.trained()) {
    if (weight.name == name) return &weight;
  }
  return nullptr;
}

}  // namespace

at::Tensor project_to_tangent(Manifold manifold, const at::Tensor& w, const at::Tensor& u) {
  switch (manifold) {
    case Manifold::none: return u;
    case Manifold::sphere: return u - (u * w).sum(-1, /*keepdim=*/true) * w;
    case Manifold::stiefel_polar:
    case Manifold::stiefel_qr: {
      const at::Tensor product = at::bmm(u, w.mT());
      return u - at::bmm(0.5 * (product + product.mT()), w);
    }
  }
  KEDGE_CHECK(!"a manifold without a tangent space");
  std::abort();
}

ManifoldWeights::ManifoldWeights(const ModelSpec& spec, Weights& weights) {
  const auto add = [&](const std::string& name, Manifold manifold, std::int64_t experts) {
    TrainedWeight* weight = find(weights, name);
    if (weight == nullptr || manifold == Manifold::none) return;
    const Shape& s = weight->shape;
    const Shape stack = s.size() == 3 ? s : Shape{experts, s[0] / experts, s[1]};
    points_.push_back({manifold, weight->value.detach().view(stack), weight->value.grad().view(stack), {}});
  };
  for (const BlockSpec& block : spec.blocks) {
    const auto* moe = std::get_if<ReconstructionMoe>(&block.mixer);
    if (moe == nullptr) continue;
    const std::string prefix = fmt::format("model.layers.{}.mlp.", block.source_layer);
    add(prefix + "gate.weight", moe->encoder_manifold, moe->router.num_experts);
    for (const char* projection : {"gate_proj", "up_proj", "down_proj"}) {
      const Manifold manifold = moe->anchor_delta ? moe->anchor_delta->manifold : Manifold::none;
      add(fmt::format("{}experts.{}.weight", prefix, projection), manifold, moe->router.num_experts);
    }
  }
}

void ManifoldWeights::place() {
  const at::NoGradGuard no_gradients;
  for (Point& p : points_) p.value.copy_(twin::retract(p.manifold, p.value));
}

void ManifoldWeights::begin_step() {
  const at::NoGradGuard no_gradients;
  for (Point& p : points_) {
    p.gradient.copy_(project_to_tangent(p.manifold, p.value, p.gradient));
    p.before = p.value.clone();
  }
}

void ManifoldWeights::end_step() {
  const at::NoGradGuard no_gradients;
  for (Point& p : points_) {
    const at::Tensor step = project_to_tangent(p.manifold, p.before, p.value - p.before);
    p.value.copy_(twin::retract(p.manifold, p.before + step));
  }
}

}  // namespace kedge::training
