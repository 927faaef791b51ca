// The mixers of a block as data: what a family's config says about attention, latent attention and the dense FFN.
// model/spec.h puts them into a ModelSpec; the modules beside this file are built from them.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

struct RopeSpec {
  enum class Type { standard, linear, llama3, yarn };
  float theta = 10000.0f;
  std::int64_t rotary_dim = 0;
  bool interleaved = false;
  Type type = Type::standard;
  float factor = 1.0f;
  std::int64_t original_max_position_embeddings = 0;
  float low_freq_factor = 1.0f, high_freq_factor = 4.0f;  ///< llama3
  float beta_fast = 32.0f, beta_slow = 1.0f;              ///< yarn
  float mscale = 0.0f, mscale_all_dim = 0.0f;             ///< yarn; 0: absent
  float attention_factor = 0.0f;                          ///< yarn; 0: derived
  bool truncate = true;                                   ///< yarn

  bool operator==(const RopeSpec&) const = default;
};

enum class QkNorm { none, per_head, full };

/// Grouped-query attention. Tensors: q_proj [heads * head_dim, H], k_proj, v_proj, o_proj [H, heads * head_dim].
struct Attention {
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  bool qkv_bias = false, o_bias = false;
  QkNorm qk_norm = QkNorm::none;  ///< per_head: weight [head_dim]; full: over the whole projection, before the split
  std::optional<float> clip_qkv;  ///< after the norm, before rope
  std::int64_t sliding_window = 0;
  bool causal = true;  ///< else tokens see those behind them too (masked diffusion), and there is no window
  RopeSpec rope;
};

/// Multi-head latent attention (DeepSeek-V2 section 2.1). q_lora_rank 0: q_proj is used directly.
struct Mla {
  std::int64_t num_attention_heads = 0;
  std::int64_t q_lora_rank = 0, kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  bool bias = false;  ///< of q_a_proj, kv_a_proj_with_mqa and o_proj
  bool causal = true;
  RopeSpec rope;
};

struct Mlp {
  std::int64_t intermediate_size = 0;
  FfnActivation hidden_act = FfnActivation::silu;
  bool gated = true;  ///< gate, up, down; otherwise up and down: act(up_proj x)
};

}  // namespace kedge
