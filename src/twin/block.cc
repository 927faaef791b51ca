#include "twin/block.h"

#include <fmt/format.h>

#include "base/check.h"
#include "twin/attention.h"
#include "twin/moe.h"
#include "twin/reconstruction_moe.h"
#include "twin/scope.h"

namespace kedge::twin {
namespace {

const RopeSpec* rope_of(const BlockSpec& block) {
  if (const auto* a = std::get_if<Attention>(&block.mixer)) return &a->rope;
  if (const auto* a = std::get_if<Mla>(&block.mixer)) return &a->rope;
  return nullptr;
}

/// Any mixer on the normed x [B, T, H].
struct MixerForward {
  const WeightFunction& weights;
  const Options& options;
  const Pass& pass;
  int layer;
  double norm_eps;
  const RopeAngles* angles;
  const Tensor& x;

  Scope scope(const char* module) const {
    return {weights, options, fmt::format("model.layers.{}.{}.", layer, module)};
  }
  Tensor operator()(const Attention& a) const {
    return attention(a, scope("self_attn"), *angles, norm_eps, x, pass.mask);
  }
  Tensor operator()(const Mla& a) const { return latent_attention(a, scope("self_attn"), *angles, x, pass.mask); }
  Tensor operator()(const Mlp& m) const { return dense_ffn(scope("mlp"), m, x); }
  Tensor operator()(const ReconstructionMoe& m) const {
    Routing routing;
    const Tensor y = routed_by_error(m, scope("mlp"), x.flatten(0, 1), routing).view_as(x);
    routing.layer = layer;
    if (pass.routing != nullptr) pass.routing->push_back(std::move(routing));
    return y;
  }
  Tensor operator()(const Moe& m) const {
    const Scope mlp = scope("mlp");
    Routing routing = twin::route(m, mlp, x.flatten(0, 1));
    routing.layer = layer;
    const Tensor y = experts(m, mlp, routing).view_as(x);
    if (pass.routing != nullptr) pass.routing->push_back(std::move(routing));
    return y;
  }
};

}  // namespace

Block::Block(const ModelSpec& spec, std::size_t block, const Options& options)
    : norm_eps_(spec.rms_norm_eps), options_(options) {
  KEDGE_CHECK(block < spec.blocks.size());
  spec_ = spec.blocks[block];
  if (const RopeSpec* rope = rope_of(spec_)) angles_.emplace(*rope, options);
}

Tensor Block::forward(const Tensor& h, const WeightFunction& weights, const Pass& pass) {
  KEDGE_CHECK(h.dim() == 3 && h.scalar_type() == options_.dtype);
  if (angles_) angles_->reserve(h.size(1));
  const Scope scope{weights, options_, fmt::format("model.layers.{}.", layer())};
  const Tensor x = scope.rms_norm(spec_.pre_norm, h, norm_eps_);
  const MixerForward mixer{weights, options_, pass, layer(), norm_eps_, angles_ ? &*angles_ : nullptr, x};
  const Tensor y = std::visit(mixer, spec_.mixer).to(options_.dtype);
  return spec_.residual_scale == 1.0f ? h + y : h + y * spec_.residual_scale;
}

Routing Block::route(const Tensor& h, const WeightFunction& weights) const {
  KEDGE_CHECK(is_moe() && h.dim() == 3);
  const std::string prefix = fmt::format("model.layers.{}.", layer());
  const Tensor x = Scope{weights, options_, prefix}.rms_norm(spec_.pre_norm, h, norm_eps_);
  Routing out = twin::route(std::get<Moe>(spec_.mixer), Scope{weights, options_, prefix + "mlp."}, x.flatten(0, 1));
  out.layer = layer();
  return out;
}

Layer::Layer(const ModelSpec& spec, int layer, const Options& options) : layer_(layer) {
  for (std::size_t b = 0; b < spec.blocks.size(); ++b) {
    if (spec.blocks[b].source_layer == layer) blocks_.emplace_back(spec, b, options);
  }
  KEDGE_CHECK(!blocks_.empty());
}

bool Layer::is_moe() const noexcept {
  for (const Block& block : blocks_) {
    if (block.is_moe()) return true;
  }
  return false;
}

Tensor Layer::forward(const Tensor& h, const WeightFunction& weights, const Pass& pass) {
  Tensor out = h;
  for (Block& block : blocks_) out = block.forward(out, weights, pass);
  return out;
}

Routing Layer::route(const Tensor& h, const WeightFunction& weights, const Pass& pass) {
  KEDGE_CHECK(is_moe());
  Tensor input = h;
  std::size_t b = 0;
  for (; !blocks_[b].is_moe(); ++b) input = blocks_[b].forward(input, weights, pass);
  return blocks_[b].route(input, weights);
}

}  // namespace kedge::twin
