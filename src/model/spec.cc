#include "model/spec.h"

#include <cstdlib>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge {

void ModelSpec::require_causal(const std::string& what) const {
  if (!is_masked_diffusion()) return;
  throw Error(ErrorCode::unsupported, what + ", and this is a masked-diffusion model (mask_token_id in its config.json)",
              "a model that predicts the next token", "kedge eval scores this one");
}

std::vector<int> ModelSpec::moe_layers() const {
  std::vector<int> layers;
  for (const BlockSpec& block : blocks) {
    const bool routed =
        std::holds_alternative<Moe>(block.mixer) || std::holds_alternative<ReconstructionMoe>(block.mixer);
    if (routed) layers.push_back(block.source_layer);
  }
  return layers;
}

const Moe& ModelSpec::moe(int layer) const {
  for (const BlockSpec& block : blocks) {
    if (block.source_layer != layer) continue;
    if (const auto* moe = std::get_if<Moe>(&block.mixer)) return *moe;
  }
  KEDGE_CHECK(!"not a MoE layer");
  std::abort();
}

RouterSpec ModelSpec::router(int layer) const {
  for (const BlockSpec& block : blocks) {
    if (block.source_layer != layer) continue;
    if (const auto* moe = std::get_if<Moe>(&block.mixer)) return moe->router;
    if (const auto* moe = std::get_if<ReconstructionMoe>(&block.mixer)) return as_router_spec(*moe);
  }
  KEDGE_CHECK(!"not a layer with experts");
  std::abort();
}

bool ModelSpec::routes_by_error() const noexcept {
  for (const BlockSpec& block : blocks) {
    if (std::holds_alternative<ReconstructionMoe>(block.mixer)) return true;
  }
  return false;
}

}  // namespace kedge
