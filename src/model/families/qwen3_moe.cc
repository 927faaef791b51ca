// Qwen3-MoE (Qwen/Qwen3-30B-A3B): q and k normed per head; some layers may be dense.
#include <algorithm>
#include <vector>

#include "model/families/common.h"
#include "model/families/families.h"

namespace kedge::families {

ModelSpec qwen3_moe(const nlohmann::ordered_json& json, const std::string& where) {
  const ConfigReader config(json, where);
  ModelSpec spec = read_model(config, "qwen3_moe", 1e-6);
  Attention attention = read_attention(config, spec.hidden_size, 10000.0);
  attention.qkv_bias = attention.o_bias = config.flag_or("attention_bias", false);
  attention.qk_norm = QkNorm::per_head;
  if (config.flag_or("use_sliding_window", false)) {
    attention.sliding_window = config.integer_or("sliding_window", 0, 1, kMaxPositions);
  }
  const std::vector<std::int64_t> dense_layers = config.integers_or_empty("mlp_only_layers", 0, kMaxLayers);
  const std::int64_t step = config.integer_or("decoder_sparse_step", 1, 1, kMaxLayers);
  Moe moe;
  moe.router = read_router(config, "num_experts", "num_local_experts");
  moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  check_router(config, moe.router, spec.num_hidden_layers);
  moe.moe_intermediate_size = config.integer("moe_intermediate_size", 1, kMaxIntermediate);
  moe.hidden_act = read_activation(config);
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const bool listed = std::find(dense_layers.begin(), dense_layers.end(), layer) != dense_layers.end();
    if (listed || (layer + 1) % step != 0) {
      const Mlp dense{config.integer("intermediate_size", 1, kMaxIntermediate), moe.hidden_act};
      add_layer(spec, layer, attention, dense);
    } else {
      add_layer(spec, layer, attention, moe);
    }
  }
  return spec;
}

}  // namespace kedge::families
