// kedge's own family: attention as Llama's, layers routed by reconstruction error with a shared anchor and quantized
// deltas (moe/reconstruction_moe.h), or dense ones, or a learned router in the same layer: the model and what it is
// compared with differ in nothing else. docs/formats/kedge-mcqsmoe.md has the keys.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "kedge/error.h"
#include "model/families/common.h"
#include "model/families/families.h"

namespace kedge::families {
namespace {

constexpr double kMaxPositive = 1e12, kLeastPositive = 1e-12;

/// A word of a table. What parse() throws is a usage error; here it is one of the file.
template <class Parse>
auto word(const ConfigReader& config, const char* key, const char* fallback, const Parse& parse, const char* expected) {
  const std::string text = config.text_or(key, fallback);
  try {
    return parse(text);
  } catch (const Error&) {
    config.fail(key, "'" + text.substr(0, 40) + "'", expected);
  }
}

constexpr const char* kManifolds = "none, sphere, stiefel-polar or stiefel-qr";

std::optional<FfnActivation> read_router_activation(const ConfigReader& config) {
  const std::string name = config.text_or("router_hidden_act", "linear");
  if (name == "linear") return std::nullopt;
  if (name == "gelu") return FfnActivation::gelu;
  if (name == "silu") return FfnActivation::silu;
  if (name == "gelu_pytorch_tanh") return FfnActivation::gelu_tanh;
  config.fail("router_hidden_act", "'" + name.substr(0, 40) + "'", "linear, gelu, silu or gelu_pytorch_tanh");
}

ErrorRouterSpec read_error_router(const ConfigReader& config, std::int64_t hidden_size, Manifold encoders) {
  ErrorRouterSpec router;
  router.hidden_size = hidden_size;
  router.num_experts = config.integer("num_experts", 1, kMaxExperts);
  router.num_experts_per_tok = config.integer("num_experts_per_tok", 1, router.num_experts);
  router.measure = word(config, "router_error", "squared", parse_error_measure, "squared, cosine, huber or linear");
  router.bottleneck = router.is_learned() ? config.integer_or("router_bottleneck", 1, 1, 1)
                                          : config.integer("router_bottleneck", 1, hidden_size);
  const bool is_ratio = router.is_learned() || router.measure == ErrorMeasure::cosine;
  router.normalization = word(config, "router_error_normalization", is_ratio ? "none" : "input",
                              parse_error_normalization, "none, width or input");
  router.huber_delta = static_cast<float>(config.number_or("router_huber_delta", 1.0, kLeastPositive, kMaxPositive));
  router.temperature = static_cast<float>(
      config.number_or("router_temperature", router.is_learned() ? 1.0 : 0.1, kLeastPositive, kMaxPositive));
  router.trained_temperature = config.flag_or("router_temperature_trained", false);
  router.combine =
      word(config, "router_combine", "softmin", parse_combine_method, "softmin, residual, best or uniform");
  router.activation = read_router_activation(config);
  router.tied = config.flag_or("router_tied", true);
  router.orthonormal = is_stiefel(encoders);
  return router;
}

std::optional<AnchorDeltaArgs> read_anchor_delta(const ConfigReader& config) {
  if (!config.has("expert_delta_bits")) return std::nullopt;
  AnchorDeltaArgs args;
  args.num_bits = static_cast<int>(config.integer("expert_delta_bits", 2, 4));
  if (args.num_bits == 3) config.fail("expert_delta_bits", "3", "2 or 4");
  args.group_size = config.integer_or("expert_group_size", 64, 32, 128);
  args.manifold = word(config, "expert_manifold", "sphere", parse_manifold, kManifolds);
  const std::string dtype = config.text_or("expert_anchor_dtype", "float16");
  if (dtype != "float16" && dtype != "bfloat16" && dtype != "int8") {
    config.fail("expert_anchor_dtype", "'" + dtype.substr(0, 40) + "'", "float16, bfloat16 or int8");
  }
  args.anchor_dtype = dtype == "float16" ? DType::f16 : dtype == "bfloat16" ? DType::bf16 : DType::i8;
  return args;
}

/// Group and manifold must fit every stack: up and gate [f, d], down [d, f].
void check_stacks(const ConfigReader& config, const ReconstructionMoe& moe) {
  if (!moe.anchor_delta || moe.output != ExpertOutput::ffn) return;
  const std::int64_t d = moe.router.hidden_size, f = moe.intermediate_size;
  check_args(*moe.anchor_delta, f, d, config.where() + ": up_proj", ErrorCode::bad_file);
  check_args(*moe.anchor_delta, d, f, config.where() + ": down_proj", ErrorCode::bad_file);
}

/// What single keys cannot say (check_error_router of moe/error_router.h, of a file).
void check_combination(const ConfigReader& config, const ErrorRouterSpec& router) {
  const bool is_ratio = router.is_learned() || router.measure == ErrorMeasure::cosine;
  if (is_ratio && router.normalization != ErrorNormalization::none) {
    config.fail("router_error_normalization", std::string("'") + error_normalization_name(router.normalization) + "'",
                "none beside cosine and linear");
  }
  if (router.trained_temperature && (router.is_learned() || router.combine == CombineMethod::uniform)) {
    config.fail("router_temperature_trained", "true", "false beside router_error linear and router_combine uniform");
  }
  if (router.is_learned() && (router.activation || !router.tied || router.orthonormal)) {
    config.fail("router_error", "'linear'", "another one beside router_hidden_act, router_tied or router_manifold");
  }
}

ReconstructionMoe read_moe(const ConfigReader& config, std::int64_t hidden_size) {
  ReconstructionMoe moe;
  moe.encoder_manifold = word(config, "router_manifold", "none", parse_manifold, kManifolds);
  moe.router = read_error_router(config, hidden_size, moe.encoder_manifold);
  if (moe.encoder_manifold == Manifold::sphere) {
    config.fail("router_manifold", "'sphere'", "none, stiefel-polar or stiefel-qr");
  }
  const std::string output = config.text_or("expert_output", "ffn");
  if (output != "ffn" && output != "reconstruction") {
    config.fail("expert_output", "'" + output.substr(0, 40) + "'", "ffn or reconstruction");
  }
  moe.output = output == "ffn" ? ExpertOutput::ffn : ExpertOutput::reconstruction;
  moe.hidden_act = read_activation(config);
  moe.gated = config.flag_or("mlp_gated", false);
  if (moe.output == ExpertOutput::ffn) {
    moe.intermediate_size = config.integer("moe_intermediate_size", 1, kMaxIntermediate);
    moe.anchor_delta = read_anchor_delta(config);
  } else if (moe.router.is_learned()) {
    config.fail("expert_output", "'reconstruction'", "ffn beside router_error linear");
  }
  check_combination(config, moe.router);
  check_stacks(config, moe);
  return moe;
}

}  // namespace

ModelSpec kedge_mcqsmoe(const nlohmann::ordered_json& json, const std::string& where) {
  const ConfigReader config(json, where);
  ModelSpec spec = read_model(config, "kedge_mcqsmoe", 1e-6);
  const Attention attention = read_attention(config, spec.hidden_size, 10000.0);
  const std::vector<std::int64_t> dense_layers = config.integers_or_empty("mlp_only_layers", 0, kMaxLayers);
  const auto is_dense = [&](int layer) {
    return std::find(dense_layers.begin(), dense_layers.end(), layer) != dense_layers.end();
  };
  std::optional<ReconstructionMoe> moe;
  for (int layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (is_dense(layer)) {
      const Mlp dense{config.integer("intermediate_size", 1, kMaxIntermediate), read_activation(config),
                      config.flag_or("mlp_gated", false)};
      add_layer(spec, layer, attention, dense);
      continue;
    }
    if (!moe) {
      moe = read_moe(config, spec.hidden_size);
      check_router(config, as_router_spec(*moe), spec.num_hidden_layers);
    }
    add_layer(spec, layer, attention, *moe);
  }
  return spec;
}

}  // namespace kedge::families
