#include "model/families/common.h"

#include <string>

#include <fmt/format.h>

namespace kedge::families {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;

RopeSpec::Type rope_type(const ConfigReader& rope) {
  const std::string name = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (name == "default") return RopeSpec::Type::standard;
  if (name == "linear") return RopeSpec::Type::linear;
  if (name == "llama3") return RopeSpec::Type::llama3;
  if (name == "yarn") return RopeSpec::Type::yarn;
  rope.unsupported("rope_type", "'" + name.substr(0, 40) + "'", "default, linear, llama3 or yarn");
}

void read_scaling(const ConfigReader& config, const ConfigReader& rope, RopeSpec& out) {
  const bool needs_context = out.type == RopeSpec::Type::llama3 || out.type == RopeSpec::Type::yarn;
  if (needs_context) {
    const std::int64_t positions = config.integer("max_position_embeddings", 1, kMaxPositions);
    const std::int64_t outer = config.integer_or("original_max_position_embeddings", 0, 1, kMaxPositions);
    const std::int64_t inner = rope.integer_or("original_max_position_embeddings", positions, 1, kMaxPositions);
    out.original_max_position_embeddings = outer > 0 ? outer : inner;
    const double ratio = static_cast<double>(positions) / static_cast<double>(out.original_max_position_embeddings);
    out.factor = static_cast<float>(out.type == RopeSpec::Type::yarn ? rope.number_or("factor", ratio, 1e-3, kMaxFactor)
                                                                     : rope.number("factor", 1e-3, kMaxFactor));
  } else {
    out.factor = static_cast<float>(rope.number("factor", 1e-3, kMaxFactor));
  }
  if (out.type == RopeSpec::Type::llama3) {
    out.low_freq_factor = static_cast<float>(rope.number("low_freq_factor", 1e-3, kMaxFactor));
    out.high_freq_factor = static_cast<float>(rope.number("high_freq_factor", 1e-3, kMaxFactor));
    if (out.high_freq_factor == out.low_freq_factor) {
      rope.fail("high_freq_factor", "equal to low_freq_factor", "two different factors");
    }
  }
  if (out.type == RopeSpec::Type::yarn) {
    out.beta_fast = static_cast<float>(rope.number_or("beta_fast", 32.0, 1e-3, kMaxFactor));
    out.beta_slow = static_cast<float>(rope.number_or("beta_slow", 1.0, 1e-3, kMaxFactor));
    out.mscale = static_cast<float>(rope.number_or("mscale", 0.0, 0.0, 100.0));
    out.mscale_all_dim = static_cast<float>(rope.number_or("mscale_all_dim", 0.0, 0.0, 100.0));
    out.attention_factor = static_cast<float>(rope.number_or("attention_factor", 0.0, 1e-6, 100.0));
    out.truncate = rope.flag_or("truncate", true);
  } else {
    // Latent attention reads it under any scaled rope.
    out.mscale_all_dim = static_cast<float>(rope.number_or("mscale_all_dim", 0.0, 0.0, 100.0));
  }
}

}  // namespace

ModelSpec read_model(const ConfigReader& config, const char* model_type, double default_eps) {
  ModelSpec spec;
  spec.model_type = model_type;
  spec.vocab_size = config.integer("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.integer("hidden_size", 1, kMaxHidden);
  spec.max_position_embeddings = config.integer("max_position_embeddings", 1, kMaxPositions);
  spec.num_hidden_layers = static_cast<int>(config.integer("num_hidden_layers", 1, kMaxLayers));
  spec.rms_norm_eps = static_cast<float>(config.number_or("rms_norm_eps", default_eps, 0.0, 1.0));
  spec.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  spec.mask_token_id = config.integer_or("mask_token_id", -1, 0, spec.vocab_size - 1);
  return spec;
}

bool is_causal(const ConfigReader& config) {
  if (!config.has("mask_token_id")) return true;
  if (config.has("sliding_window") && config.flag_or("use_sliding_window", true)) {
    config.unsupported("sliding_window", "set beside mask_token_id", "none where attention looks both ways");
  }
  return false;
}

Attention read_attention(const ConfigReader& config, std::int64_t hidden_size, double default_theta) {
  Attention a;
  a.num_attention_heads = config.integer("num_attention_heads", 1, kMaxHeads);
  a.num_key_value_heads = config.integer_or("num_key_value_heads", a.num_attention_heads, 1, kMaxHeads);
  if (a.num_attention_heads % a.num_key_value_heads != 0) {
    config.fail("num_key_value_heads", std::to_string(a.num_key_value_heads),
                fmt::format("a divisor of num_attention_heads, {}", a.num_attention_heads));
  }
  if (!config.has("head_dim") && hidden_size % a.num_attention_heads != 0) {
    config.fail("head_dim", "missing", "a value, as num_attention_heads does not divide hidden_size");
  }
  a.head_dim = config.integer_or("head_dim", hidden_size / a.num_attention_heads, 1, kMaxHeadDim);
  a.rope = read_rope(config, a.head_dim, default_theta);
  a.causal = is_causal(config);
  return a;
}

namespace {

/// form: "rope_parameters" or "rope_scaling"; null: the config has neither, its theta is at the top, no scaling.
RopeSpec read_rope_form(const ConfigReader& config, const char* form, std::int64_t head_dim, double default_theta) {
  const std::optional<ConfigReader> object = form == nullptr ? std::nullopt : config.object(form);
  const ConfigReader& rope = object ? *object : config;
  if (object && rope.has_nested_objects()) config.unsupported(form, "given per layer type", "one set for all layers");
  RopeSpec out;
  if (object) out.type = rope_type(rope);
  const double top_theta = config.number_or("rope_theta", default_theta, 1.0, kMaxTheta);
  out.theta = static_cast<float>(rope.number_or("rope_theta", top_theta, 1.0, kMaxTheta));
  const double top_part = config.number_or("partial_rotary_factor", 1.0, 0.0, 1.0);
  const double part = rope.number_or("partial_rotary_factor", top_part, 0.0, 1.0);
  out.rotary_dim = static_cast<std::int64_t>(static_cast<double>(head_dim) * part);
  if (out.rotary_dim < 2 || out.rotary_dim % 2 != 0) {
    config.fail(config.has("head_dim") ? "head_dim" : "hidden_size",
                fmt::format("such that {} dimensions of a head rotate", out.rotary_dim), "an even number from 2");
  }
  if (out.type == RopeSpec::Type::yarn && out.theta <= 1.0f) {
    config.fail("rope_theta", "1", "a base above 1 for yarn");
  }
  if (out.type != RopeSpec::Type::standard) read_scaling(config, rope, out);
  return out;
}

}  // namespace

RopeSpec read_rope(const ConfigReader& config, std::int64_t head_dim, double default_theta) {
  const bool old_form = config.object("rope_scaling").has_value(),
             new_form = config.object("rope_parameters").has_value();
  if (!old_form && !new_form) return read_rope_form(config, nullptr, head_dim, default_theta);
  RopeSpec out = read_rope_form(config, new_form ? "rope_parameters" : "rope_scaling", head_dim, default_theta);
  if (!old_form || !new_form) return out;
  // transformers takes the old form then, with its own default for a theta that it lacks: too easily not what is meant.
  RopeSpec other = read_rope_form(config, "rope_scaling", head_dim, default_theta);
  other.theta = out.theta;
  if (!(other == out)) {
    config.unsupported("rope_scaling", "another than rope_parameters, which is there too",
                       "one of them, or the same in both");
  }
  return out;
}

FfnActivation read_activation(const ConfigReader& config) {
  const std::string name = config.text_or("hidden_act", "silu");
  if (name == "silu" || name == "swish") return FfnActivation::silu;
  if (name == "gelu") return FfnActivation::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return FfnActivation::gelu_tanh;
  if (name == "relu2") return FfnActivation::relu2;
  config.unsupported("hidden_act", "'" + name.substr(0, 40) + "'",
                     "silu, swish, gelu, gelu_new, gelu_pytorch_tanh or relu2");
}

RouterSpec read_router(const ConfigReader& config, const char* usual_key, const char* other_key) {
  const char* experts_key = !config.has(usual_key) && config.has(other_key) ? other_key : usual_key;
  RouterSpec router;
  router.num_experts = config.integer(experts_key, 1, kMaxExperts);
  router.num_experts_per_tok = config.integer("num_experts_per_tok", 1, router.num_experts);
  return router;
}

void check_router(const ConfigReader& config, const RouterSpec& router, std::int64_t layers) {
  if (router.num_experts % router.n_group != 0) {
    config.fail("n_group", std::to_string(router.n_group),
                fmt::format("a divisor of the {} experts", router.num_experts));
  }
  if (!is_valid(router)) {
    config.fail("num_experts_per_tok", std::to_string(router.num_experts_per_tok),
                fmt::format("at most what {} of {} groups of {} experts hold", router.topk_group, router.n_group,
                            router.num_experts));
  }
  if (router.num_experts * layers > kMaxLayersTimesExperts) {
    config.fail("num_hidden_layers", std::to_string(layers),
                fmt::format("at most {} experts in all layers together", kMaxLayersTimesExperts));
  }
}

}  // namespace kedge::families
