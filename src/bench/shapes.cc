#include "bench/shapes.h"

#include "base/json.h"
#include "kedge/error.h"
#include "model/family.h"

namespace kedge {
namespace {

struct KnownShape {
  const char* name;
  const char* config;
};

constexpr KnownShape kShapes[] = {
    // huggingface.co/allenai/OLMoE-1B-7B-0924
    {"olmoe-1b-7b", R"({
      "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_act": "silu", "attention_bias": false,
      "attention_dropout": 0.0, "bos_token_id": null, "clip_qkv": null, "eos_token_id": 50279, "hidden_size": 2048,
      "intermediate_size": 1024, "max_position_embeddings": 4096, "norm_topk_prob": false, "num_attention_heads": 16,
      "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16,
      "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false,
      "vocab_size": 50304})"},
    // huggingface.co/Qwen/Qwen3-30B-A3B
    {"qwen3-30b-a3b", R"({
      "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
      "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
      "eos_token_id": 151645, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
      "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768,
      "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
      "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null,
      "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false,
      "vocab_size": 151936})"},
};

}  // namespace

ModelSpec shape_spec(const std::string& name) {
  std::string known;
  for (const KnownShape& shape : kShapes) {
    if (name == shape.name) {
      const std::string where = std::string("the shape ") + shape.name;
      const Json config = parse_json(shape.config, where);
      return family_of(config, where).spec(config, where);
    }
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
  }
  throw Error(ErrorCode::usage, "there is no shape \"" + name + "\"", "one of: " + known);
}

std::vector<std::string> bench_shapes() {
  std::vector<std::string> names;
  for (const KnownShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

}  // namespace kedge
