#include "ptq/methods_twin/routers.h"

#include <fmt/format.h>

#include "base/check.h"
#include "ptq/methods_twin/objectives.h"
#include "twin/moe.h"

namespace kedge {

std::string selection_bias_name(int layer) {
  return fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", layer);
}

std::optional<NextRouter> NextRouter::find(const LayerInput& input, const twin::Options& options) {
  NextRouter out;
  for (int layer = input.layer + 1; layer < input.spec.num_hidden_layers; ++layer) {
    out.layers_.emplace_back(input.spec, layer, options);
    std::vector<twin::ParameterInfo> infos = twin::list_layer_parameters(input.spec, layer);
    const bool last = out.layers_.back().is_moe();
    if (last) {
      std::erase_if(infos, [](const twin::ParameterInfo& info) {
        return info.name.find(".mlp.experts.") != std::string::npos ||
               info.name.find(".mlp.shared_experts.") != std::string::npos;
      });
    }
    for (const auto& [name, value] : twin::load_parameters(infos, input.source, options)) {
      out.parameters_.insert(name, value);
    }
    if (last) return out;
  }
  return std::nullopt;
}

twin::Routing NextRouter::route(const at::Tensor& h) {
  const twin::WeightFunction weights = [this](const std::string& name) { return parameters_[name]; };
  at::Tensor x = h;
  for (std::size_t i = 0; i + 1 < layers_.size(); ++i) x = layers_[i].forward(x, weights);
  return layers_.back().route(x, weights);
}

at::Tensor NextRouter::selection_bias() const {
  const std::string name = selection_bias_name(layer());
  return parameters_.contains(name) ? parameters_[name] : at::Tensor();
}

RouterTargets::RouterTargets(const RouterSpec& spec, at::Tensor bias, std::int64_t sequences, std::int64_t seqlen)
    : spec_(spec),
      bias_(std::move(bias)),
      logits_(at::empty({sequences, seqlen, spec.num_experts}, at::TensorOptions().dtype(at::kFloat))) {}

void RouterTargets::set(std::int64_t first, const twin::Routing& routing) {
  const std::int64_t seqlen = logits_.size(1), count = routing.logits.size(0) / seqlen;
  logits_.narrow(0, first, count).copy_(routing.logits.view({count, seqlen, -1}));
  const at::Tensor margins = boundary_margins(spec_, routing);
  if (!margins.defined() || margins.numel() == 0) return;
  margin_sum_ += margins.sum(at::kDouble).item<double>();
  margin_count_ += margins.numel();
}

twin::Routing RouterTargets::at(std::span<const std::int64_t> sequences, const at::Tensor& like) const {
  std::vector<at::Tensor> parts;
  for (const std::int64_t s : sequences) parts.push_back(logits_[s]);
  return twin::route(spec_, at::cat(parts, 0).to(like.device()), bias_);
}

}  // namespace kedge
