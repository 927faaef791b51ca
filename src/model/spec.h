// ModelSpec: a decoder as data. Families (families/*.cc) build it from config.json; one decoder loops over it.
//
// A transformer layer of the usual kind is two blocks (attention, then mlp or moe) with the same source_layer.
// The mixers' own specs stand with their modules: nn/mixers.h (Attention, Mla, Mlp), moe/moe_spec.h (Moe),
// moe/reconstruction_moe.h (ReconstructionMoe).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "moe/moe_spec.h"
#include "moe/reconstruction_moe.h"
#include "nn/mixers.h"

namespace kedge {

struct BlockSpec {
  std::string pre_norm;  ///< tensor name below the layer: "input_layernorm"
  std::variant<Attention, Mla, Mlp, Moe, ReconstructionMoe> mixer;
  float residual_scale = 1.0f;
  int source_layer = 0;
};

struct ModelSpec {
  std::string model_type;
  std::int64_t vocab_size = 0, hidden_size = 0;
  std::int64_t max_position_embeddings = 0;
  int num_hidden_layers = 0;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  std::int64_t mask_token_id = -1;  ///< of a masked-diffusion model, whose attention is not causal; -1: none
  std::vector<BlockSpec> blocks;

  bool is_masked_diffusion() const noexcept { return mask_token_id >= 0; }
  /// Error(unsupported) for a masked-diffusion model; `what` cannot be done with it: "text is written from left to right".
  void require_causal(const std::string& what) const;
  /// source_layer of every block with routed experts, ascending.
  std::vector<int> moe_layers() const;
  const Moe& moe(int layer) const;        ///< CHECKs that the layer has a Moe
  RouterSpec router(int layer) const;     ///< of any of moe_layers(), as traces know it; CHECKs
  bool routes_by_error() const noexcept;  ///< has a ReconstructionMoe
};

}  // namespace kedge
