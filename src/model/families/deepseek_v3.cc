// DeepSeek-V3 (arXiv 2412.19437): latent attention, leading dense layers, grouped sigmoid router with selection bias,
// one ungated shared expert. Multi-token-prediction layers (model.layers.<num_hidden_layers> and up) are left alone.
#include "model/families/common.h"
#include "model/families/families.h"

namespace kedge::families {
namespace {

Mla read_mla(const ConfigReader& config) {
  Mla mla;
  mla.num_attention_heads = config.integer("num_attention_heads", 1, kMaxHeads);
  mla.q_lora_rank = config.integer_or("q_lora_rank", 0, 1, kMaxHidden);
  mla.kv_lora_rank = config.integer("kv_lora_rank", 1, kMaxHidden);
  mla.qk_nope_head_dim = config.integer("qk_nope_head_dim", 1, kMaxHeadDim);
  mla.qk_rope_head_dim = config.integer("qk_rope_head_dim", 2, kMaxHeadDim);
  mla.v_head_dim = config.integer("v_head_dim", 1, kMaxHeadDim);
  mla.bias = config.flag_or("attention_bias", false);
  mla.rope = read_rope(config, mla.qk_rope_head_dim, 10000.0);
  if (mla.rope.rotary_dim != mla.qk_rope_head_dim) {
    config.unsupported("partial_rotary_factor", "below 1", "a full rotation of qk_rope_head_dim");
  }
  mla.causal = is_causal(config);
  mla.rope.interleaved = config.flag_or("rope_interleave", true);
  return mla;
}

RouterSpec read_v3_router(const ConfigReader& config) {
  RouterSpec router = read_router(config, "n_routed_experts", "num_local_experts");
  const std::string scoring = config.text_or("scoring_func", "sigmoid");
  if (scoring != "sigmoid")
    config.unsupported("scoring_func", "'" + scoring.substr(0, 40) + "'", "sigmoid for deepseek_v3");
  const std::string method = config.text_or("topk_method", "noaux_tc");
  if (method != "noaux_tc")
    config.unsupported("topk_method", "'" + method.substr(0, 40) + "'", "noaux_tc for deepseek_v3");
  router.scoring_func = ScoringFunc::sigmoid;
  router.selection_bias = true;
  router.n_group = config.integer("n_group", 1, router.num_experts);
  router.topk_group = config.integer("topk_group", 1, router.n_group);
  router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
  router.routed_scaling_factor = static_cast<float>(config.number_or("routed_scaling_factor", 2.5, 0.0, 1e6));
  return router;
}

}  // namespace

ModelSpec deepseek_v3(const nlohmann::ordered_json& json, const std::string& where) {
  const ConfigReader config(json, where);
  ModelSpec spec = read_model(config, "deepseek_v3", 1e-6);
  const Mla mla = read_mla(config);
  if (config.integer_or("moe_layer_freq", 1, 1, kMaxLayers) != 1) {
    config.unsupported("moe_layer_freq", "above 1", "1: each layer after the leading dense ones is MoE");
  }
  const std::int64_t dense_layers = config.integer_or("first_k_dense_replace", 3, 0, kMaxLayers);
  Moe moe;
  moe.router = read_v3_router(config);
  check_router(config, moe.router, spec.num_hidden_layers);
  moe.moe_intermediate_size = config.integer("moe_intermediate_size", 1, kMaxIntermediate);
  moe.hidden_act = read_activation(config);
  moe.shared_expert_intermediate_size = moe.moe_intermediate_size * config.integer_or("n_shared_experts", 1, 0, 64);
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (layer < dense_layers) {
      const Mlp dense{config.integer("intermediate_size", 1, kMaxIntermediate), moe.hidden_act};
      add_layer(spec, layer, mla, dense);
    } else {
      add_layer(spec, layer, mla, moe);
    }
  }
  return spec;
}

}  // namespace kedge::families
