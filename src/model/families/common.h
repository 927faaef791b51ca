// What families' config files have in common. Bounds keep an absurd file from asking for absurd memory; real models
// stay far below them.
#pragma once

#include <cstdint>

#include "model/config_reader.h"
#include "model/spec.h"

namespace kedge::families {

inline constexpr std::int64_t kMaxLayers = 1000;
inline constexpr std::int64_t kMaxHidden = 1 << 17;
inline constexpr std::int64_t kMaxIntermediate = 1 << 20;
inline constexpr std::int64_t kMaxVocab = 1 << 22;
inline constexpr std::int64_t kMaxPositions = 1 << 28;
inline constexpr std::int64_t kMaxHeads = 4096;
inline constexpr std::int64_t kMaxHeadDim = 4096;
inline constexpr std::int64_t kMaxLayersTimesExperts = 1 << 17;

/// The keys outside of any block.
ModelSpec read_model(const ConfigReader& config, const char* model_type, double default_eps);
/// mask_token_id makes a masked-diffusion model (LLaDA's key, arXiv 2502.09992), whose attention looks both ways.
bool is_causal(const ConfigReader& config);
/// heads, key-value heads (absent: as heads), head_dim (absent: hidden / heads) and rope. No norms, biases or window.
Attention read_attention(const ConfigReader& config, std::int64_t hidden_size, double default_theta);
/// rope_parameters {rope_theta, rope_type, ...}, or rope_theta and rope_scaling {rope_type | type, ...}.
/// head_dim: what partial_rotary_factor is a part of.
RopeSpec read_rope(const ConfigReader& config, std::int64_t head_dim, double default_theta);
FfnActivation read_activation(const ConfigReader& config);
/// Experts and experts per token. The experts' key has a usual and another spelling. Groups stay 1.
RouterSpec read_router(const ConfigReader& config, const char* usual_key, const char* other_key);
/// Error(bad_file) when the router cannot work (k of E, groups).
void check_router(const ConfigReader& config, const RouterSpec& router, std::int64_t layers);

/// One transformer layer: input_layernorm + mixer, post_attention_layernorm + ffn.
template <class Mixer, class Ffn>
void add_layer(ModelSpec& spec, int layer, const Mixer& mixer, const Ffn& ffn) {
  spec.blocks.push_back({"input_layernorm", mixer, 1.0f, layer});
  spec.blocks.push_back({"post_attention_layernorm", ffn, 1.0f, layer});
}

}  // namespace kedge::families
