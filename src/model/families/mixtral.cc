// Mixtral (mistralai/Mixtral-8x7B-v0.1): every layer MoE, weights of the selected always normalised.
#include "model/families/common.h"
#include "model/families/families.h"

namespace kedge::families {

ModelSpec mixtral(const nlohmann::ordered_json& json, const std::string& where) {
  const ConfigReader config(json, where);
  ModelSpec spec = read_model(config, "mixtral", 1e-5);
  Attention attention = read_attention(config, spec.hidden_size, 1000000.0);
  // Whatever use_sliding_window says, as in transformers.
  attention.sliding_window = config.integer_or("sliding_window", 0, 1, kMaxPositions);
  if (!attention.causal && attention.sliding_window > 0) {
    config.unsupported("sliding_window", "set beside mask_token_id", "none where attention looks both ways");
  }
  Moe moe;
  moe.router = read_router(config, "num_local_experts", "num_experts");
  moe.router.norm_topk_prob = true;
  check_router(config, moe.router, spec.num_hidden_layers);
  moe.moe_intermediate_size = config.integer("intermediate_size", 1, kMaxIntermediate);
  moe.hidden_act = read_activation(config);
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) add_layer(spec, layer, attention, moe);
  return spec;
}

}  // namespace kedge::families
