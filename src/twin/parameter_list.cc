// Which parameters a spec has: the names and shapes that nn/ and moe/ load.
#include <variant>

#include <fmt/format.h>

#include "base/check.h"
#include "twin/parameters.h"

namespace kedge::twin {
namespace {

class Lister {
 public:
  explicit Lister(const ModelSpec& spec) : spec_(spec) {}

  void add_block(const BlockSpec& block) {
    layer_ = block.source_layer;
    prefix_ = fmt::format("model.layers.{}.", layer_);
    vector(block.pre_norm, spec_.hidden_size, ParameterKind::norm);
    std::visit([&](const auto& mixer) { add(mixer); }, block.mixer);
    layer_ = -1;
    prefix_.clear();
  }

  void matrix(const std::string& module, std::int64_t out, std::int64_t in,
              ParameterKind kind = ParameterKind::matrix) {
    infos_.push_back({prefix_ + module + ".weight", {out, in}, kind, layer_});
  }

  void vector(const std::string& module, std::int64_t size, ParameterKind kind) {
    const char* leaf = kind == ParameterKind::norm ? ".weight" : kind == ParameterKind::bias ? ".bias" : "";
    infos_.push_back({prefix_ + module + leaf, {size}, kind, layer_});
  }

  std::vector<ParameterInfo> take() { return std::move(infos_); }

 private:
  void linear(const std::string& module, std::int64_t out, std::int64_t in, bool bias) {
    matrix(module, out, in);
    if (bias) vector(module, out, ParameterKind::bias);
  }

  void add(const Attention& a) {
    const std::int64_t q_size = a.num_attention_heads * a.head_dim, kv_size = a.num_key_value_heads * a.head_dim;
    linear("self_attn.q_proj", q_size, spec_.hidden_size, a.qkv_bias);
    linear("self_attn.k_proj", kv_size, spec_.hidden_size, a.qkv_bias);
    linear("self_attn.v_proj", kv_size, spec_.hidden_size, a.qkv_bias);
    linear("self_attn.o_proj", spec_.hidden_size, q_size, a.o_bias);
    if (a.qk_norm == QkNorm::none) return;
    const bool per_head = a.qk_norm == QkNorm::per_head;
    vector("self_attn.q_norm", per_head ? a.head_dim : q_size, ParameterKind::norm);
    vector("self_attn.k_norm", per_head ? a.head_dim : kv_size, ParameterKind::norm);
  }

  void add(const Mla& a) {
    const std::int64_t q_size = a.num_attention_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim);
    if (a.q_lora_rank == 0) {
      linear("self_attn.q_proj", q_size, spec_.hidden_size, false);
    } else {
      linear("self_attn.q_a_proj", a.q_lora_rank, spec_.hidden_size, a.bias);
      vector("self_attn.q_a_layernorm", a.q_lora_rank, ParameterKind::norm);
      linear("self_attn.q_b_proj", q_size, a.q_lora_rank, false);
    }
    linear("self_attn.kv_a_proj_with_mqa", a.kv_lora_rank + a.qk_rope_head_dim, spec_.hidden_size, a.bias);
    vector("self_attn.kv_a_layernorm", a.kv_lora_rank, ParameterKind::norm);
    linear("self_attn.kv_b_proj", a.num_attention_heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank, false);
    linear("self_attn.o_proj", spec_.hidden_size, a.num_attention_heads * a.v_head_dim, a.bias);
  }

  void add_ffn(const std::string& module, std::int64_t inner, bool gated = true) {
    if (gated) matrix(module + ".gate_proj", inner, spec_.hidden_size);
    matrix(module + ".up_proj", inner, spec_.hidden_size);
    matrix(module + ".down_proj", spec_.hidden_size, inner);
  }

  void add(const Mlp& mlp) { add_ffn("mlp", mlp.intermediate_size, mlp.gated); }

  void add(const Moe& moe) {
    matrix("mlp.gate", moe.router.num_experts, spec_.hidden_size, ParameterKind::router);
    if (moe.router.selection_bias) {
      vector("mlp.gate.e_score_correction_bias", moe.router.num_experts, ParameterKind::selection_bias);
    }
    for (std::int64_t e = 0; e < moe.router.num_experts; ++e) {
      add_ffn(fmt::format("mlp.experts.{}", e), moe.moe_intermediate_size);
    }
    if (moe.shared_expert_intermediate_size > 0) add_ffn("mlp.shared_experts", moe.shared_expert_intermediate_size);
  }

  void add(const ReconstructionMoe& moe) {
    const ErrorRouterSpec& r = moe.router;
    matrix("mlp.gate", r.num_experts * r.bottleneck, spec_.hidden_size, ParameterKind::router);
    if (!r.tied) matrix("mlp.gate.decoder", r.num_experts * spec_.hidden_size, r.bottleneck, ParameterKind::router);
    if (r.trained_temperature) vector("mlp.gate.log_temperature", 1, ParameterKind::temperature);
    for (std::int64_t e = 0; moe.output == ExpertOutput::ffn && e < r.num_experts; ++e) {
      add_ffn(fmt::format("mlp.experts.{}", e), moe.intermediate_size, moe.gated);
    }
  }

  const ModelSpec& spec_;
  int layer_ = -1;
  std::string prefix_;
  std::vector<ParameterInfo> infos_;
};

}  // namespace

std::vector<ParameterInfo> list_parameters(const ModelSpec& spec) {
  Lister lister(spec);
  lister.matrix("model.embed_tokens", spec.vocab_size, spec.hidden_size, ParameterKind::embedding);
  for (const BlockSpec& block : spec.blocks) lister.add_block(block);
  lister.vector("model.norm", spec.hidden_size, ParameterKind::norm);
  if (!spec.tie_word_embeddings) lister.matrix("lm_head", spec.vocab_size, spec.hidden_size);
  return lister.take();
}

std::vector<ParameterInfo> list_block_parameters(const ModelSpec& spec, std::size_t block) {
  KEDGE_CHECK(block < spec.blocks.size());
  Lister lister(spec);
  lister.add_block(spec.blocks[block]);
  return lister.take();
}

std::vector<ParameterInfo> list_layer_parameters(const ModelSpec& spec, int layer) {
  Lister lister(spec);
  for (const BlockSpec& block : spec.blocks) {
    if (block.source_layer == layer) lister.add_block(block);
  }
  return lister.take();
}

std::string stacked_name(const std::string& name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  const std::size_t at = name.find(kExperts);
  if (at == std::string::npos) return {};
  const std::size_t number = at + kExperts.size();
  return name.substr(0, number) + name.substr(name.find('.', number) + 1);
}

}  // namespace kedge::twin
