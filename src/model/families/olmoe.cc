// OLMoE (allenai/OLMoE-1B-7B-0924): every layer MoE, q and k normed over the whole projection.
#include "model/families/common.h"
#include "model/families/families.h"

namespace kedge::families {

ModelSpec olmoe(const nlohmann::ordered_json& json, const std::string& where) {
  const ConfigReader config(json, where);
  ModelSpec spec = read_model(config, "olmoe", 1e-5);
  Attention attention = read_attention(config, spec.hidden_size, 10000.0);
  attention.qkv_bias = attention.o_bias = config.flag_or("attention_bias", false);
  attention.qk_norm = QkNorm::full;
  if (config.has("clip_qkv")) attention.clip_qkv = static_cast<float>(config.number("clip_qkv", 0.0, 1e30));
  Moe moe;
  moe.router = read_router(config, "num_experts", "num_local_experts");
  moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  check_router(config, moe.router, spec.num_hidden_layers);
  moe.moe_intermediate_size = config.integer("intermediate_size", 1, kMaxIntermediate);
  moe.hidden_act = read_activation(config);
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) add_layer(spec, layer, attention, moe);
  return spec;
}

}  // namespace kedge::families
