#include "twin/attention.h"

#include <cmath>

#include "nn/rope_frequencies.h"

namespace kedge::twin {
namespace {

// As nn/mla.cc: transformers builds the norms of the latents with its default, not with the config's rms_norm_eps.
constexpr double kLatentNormEps = 1e-6f;

/// Which keys a query sees.
struct Sight {
  bool causal = true;
  std::int64_t window = 0;  ///< 0: none; causal alone
  Tensor mask;              ///< [B, T] bool, true where there is a token; may be undefined
};

/// [1 or B, 1, T, T] bool; undefined where causality says it all, or where there is nothing to say. Padding sees itself,
/// so that no row of the softmax is empty.
Tensor visible(std::int64_t tokens, const Sight& sight, const at::Device& device) {
  const auto& [causal, window, mask] = sight;
  if (!mask.defined() && (window == 0 || window >= tokens)) return {};
  Tensor out = at::ones({tokens, tokens}, at::TensorOptions().dtype(at::kBool).device(device));
  if (causal) out = out.tril();
  // Token i sees (i - window, i].
  if (window > 0) out = out.triu(1 - window);
  out = out.unsqueeze(0).unsqueeze(0);
  if (!mask.defined()) return out;
  const Tensor self = at::eye(tokens, at::TensorOptions().dtype(at::kBool).device(device));
  return out.logical_and(mask.to(device).unsqueeze(1).unsqueeze(1).logical_or(self));
}

/// q, k: [B, T, heads, dim], v: [B, T, heads, value_dim]; key-value heads may be fewer. -> [B, T, heads * value_dim]
Tensor attend(const Scope& scope, const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Sight& sight) {
  const auto heads_first = [&](const Tensor& x) { return x.to(scope.options.compute_dtype).transpose(1, 2); };
  const Tensor seen = visible(q.size(1), sight, q.device());
  const bool grouped = q.size(2) != k.size(2);
  const Tensor out = at::scaled_dot_product_attention(
      heads_first(q), heads_first(k), heads_first(v), seen.defined() ? std::optional<Tensor>(seen) : std::nullopt,
      /*dropout_p=*/0.0, /*is_causal=*/sight.causal && !seen.defined(), scale, /*enable_gqa=*/grouped);
  return out.transpose(1, 2).flatten(2);
}

}  // namespace

Tensor attention(const Attention& spec, const Scope& scope, const RopeAngles& angles, double norm_eps, const Tensor& x,
                 const Tensor& mask) {
  const std::int64_t heads = spec.num_attention_heads, kv_heads = spec.num_key_value_heads, dim = spec.head_dim;
  Tensor q = scope.linear("q_proj", x, spec.qkv_bias);
  Tensor k = scope.linear("k_proj", x, spec.qkv_bias);
  Tensor v = scope.linear("v_proj", x, spec.qkv_bias);
  if (spec.qk_norm == QkNorm::full) {
    q = scope.rms_norm("q_norm", q, norm_eps);
    k = scope.rms_norm("k_norm", k, norm_eps);
  }
  q = q.unflatten(-1, {heads, dim});
  k = k.unflatten(-1, {kv_heads, dim});
  v = v.unflatten(-1, {kv_heads, dim});
  if (spec.qk_norm == QkNorm::per_head) {
    q = scope.rms_norm("q_norm", q, norm_eps);
    k = scope.rms_norm("k_norm", k, norm_eps);
  }
  if (spec.clip_qkv) {
    const double limit = *spec.clip_qkv;
    q = q.clamp(-limit, limit);
    k = k.clamp(-limit, limit);
    v = v.clamp(-limit, limit);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const Tensor out = attend(scope, rotate(q, angles, 0), rotate(k, angles, 0), v, scale, {spec.causal, spec.sliding_window, mask});
  return scope.linear("o_proj", out, spec.o_bias);
}

Tensor latent_attention(const Mla& spec, const Scope& scope, const RopeAngles& angles, const Tensor& x,
                        const Tensor& mask) {
  const std::int64_t heads = spec.num_attention_heads, nope = spec.qk_nope_head_dim, rope = spec.qk_rope_head_dim;
  Tensor q;
  if (spec.q_lora_rank == 0) {
    q = scope.linear("q_proj", x, false);
  } else {
    const Tensor latent = scope.rms_norm("q_a_layernorm", scope.linear("q_a_proj", x, spec.bias), kLatentNormEps);
    q = scope.linear("q_b_proj", latent, false);
  }
  q = rotate(q.unflatten(-1, {heads, nope + rope}), angles, nope);

  const Tensor kv_a = scope.linear("kv_a_proj_with_mqa", x, spec.bias);
  const Tensor latent = scope.rms_norm("kv_a_layernorm", kv_a.narrow(-1, 0, spec.kv_lora_rank), kLatentNormEps);
  const Tensor kv = scope.linear("kv_b_proj", latent, false).unflatten(-1, {heads, nope + spec.v_head_dim});
  // One rotated part of k, shared by all heads.
  const Tensor k_rope = rotate(kv_a.narrow(-1, spec.kv_lora_rank, rope).unsqueeze(2), angles, 0);
  const Tensor k_nope = kv.narrow(-1, 0, nope).to(k_rope.scalar_type());
  const Tensor k = at::cat({k_nope, k_rope.expand({-1, -1, heads, -1})}, -1);
  const Tensor v = kv.narrow(-1, nope, spec.v_head_dim);
  return scope.linear("o_proj", attend(scope, q, k, v, mla_softmax_scale(spec), {spec.causal, 0, mask}), spec.bias);
}

}  // namespace kedge::twin
