#include "train/rounding.h"

#include <fmt/format.h>

#include "twin/anchored.h"

namespace kedge::training {

std::map<std::string, AnchorDeltaArgs> anchored_stacks(const ModelSpec& spec) {
  std::map<std::string, AnchorDeltaArgs> out;
  for (const BlockSpec& block : spec.blocks) {
    const auto* moe = std::get_if<ReconstructionMoe>(&block.mixer);
    if (moe == nullptr || !moe->anchor_delta || moe->output != ExpertOutput::ffn) continue;
    const std::string experts = fmt::format("model.layers.{}.mlp.experts.", block.source_layer);
    if (moe->gated) out[experts + "gate_proj.weight"] = *moe->anchor_delta;
    out[experts + "up_proj.weight"] = out[experts + "down_proj.weight"] = *moe->anchor_delta;
  }
  return out;
}

twin::WeightFunction rounded_weights(const twin::Parameters& parameters,
                                     const std::map<std::string, AnchorDeltaArgs>& stacks) {
  return [&parameters, &stacks](const std::string& name) {
    const auto at = stacks.find(name);
    return at == stacks.end() ? parameters[name] : twin::encoded_weights(at->second, parameters[name]);
  };
}

std::map<std::string, AnchorDelta> encode_stacks(const ModelSpec& spec, const Weights& weights) {
  std::map<std::string, AnchorDelta> out;
  for (const auto& [name, args] : anchored_stacks(spec)) {
    const at::Tensor value = weights.parameters()[name].detach().to(at::kCPU).contiguous();
    const std::string stack = name.substr(0, name.size() - std::string_view(".weight").size());
    const std::span<const float> all{value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel())};
    // The rows are where they belong: placing them again could move one by a rounding, and a code with it.
    AnchorDeltaArgs as_it_is = args;
    as_it_is.manifold = Manifold::none;
    AnchorDelta w = encode_anchor_delta(all, value.size(0), value.size(1), value.size(2), as_it_is, {}, stack);
    w.args.manifold = args.manifold;
    set_row_scales(w, stack);
    out.emplace(stack, std::move(w));
  }
  return out;
}

}  // namespace kedge::training
