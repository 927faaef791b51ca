#include <fmt/format.h>

#include "base/json.h"
#include "kedge/error.h"
#include "model/classifier.h"
#include "model/config_reader.h"

namespace kedge {
namespace {

constexpr std::int64_t kMaxSize = 1 << 16;

}  // namespace

const char* network_name(ClassifierNetwork network) noexcept {
  switch (network) {
    case ClassifierNetwork::ffn: return "ffn";
    case ClassifierNetwork::moe: return "moe";
    case ClassifierNetwork::mcqsmoe: break;
  }
  return "mcqsmoe";
}

ClassifierNetwork parse_network(const std::string& name) {
  for (const ClassifierNetwork network : {ClassifierNetwork::ffn, ClassifierNetwork::moe, ClassifierNetwork::mcqsmoe}) {
    if (name == network_name(network)) return network;
  }
  throw Error(ErrorCode::usage, "\"" + name + "\" is no network", "ffn, moe or mcqsmoe");
}

ClassifierSpec mnist_spec(ClassifierNetwork network, std::int64_t top_k) {
  ClassifierSpec spec;
  spec.network = network;
  if (spec.has_moe()) {
    spec.hidden_sizes = {256};
    spec.router.num_experts = 4;
    spec.router.num_experts_per_tok = top_k;
  }
  return spec;
}

ErrorRouterSpec error_router(const ClassifierSpec& spec) noexcept {
  ErrorRouterSpec router;
  router.hidden_size = spec.hidden_sizes[0];
  router.bottleneck = spec.router_bottleneck;
  router.num_experts = spec.router.num_experts;
  router.num_experts_per_tok = spec.router.num_experts_per_tok;
  router.temperature = spec.router_temperature;
  return router;
}

std::vector<ClassifierLinear> list_linears(const ClassifierSpec& spec) {
  std::vector<ClassifierLinear> list;
  std::int64_t in = spec.num_inputs();
  const auto add_next = [&](std::int64_t out) {
    const auto number = static_cast<std::size_t>(list.size()) + 1;
    list.push_back({fmt::format("fc{}", number), out, in});
    in = out;
  };
  for (const std::int64_t size : spec.hidden_sizes) add_next(size);
  add_next(spec.num_classes);
  if (!spec.has_moe()) return list;
  const bool by_error = spec.routes_by_error();
  const std::int64_t router_rows = spec.router.num_experts * (by_error ? spec.router_bottleneck : 1);
  std::vector<ClassifierLinear> moe{{"moe.gate", router_rows, spec.hidden_sizes[0], -1, true, !by_error}};
  for (std::int64_t e = 0; e < spec.router.num_experts; ++e) {
    const std::string prefix = fmt::format("moe.experts.{}.", e);
    moe.push_back({prefix + "fc1", spec.moe_intermediate_size, spec.hidden_sizes[0], static_cast<int>(e)});
    moe.push_back({prefix + "fc2", spec.hidden_sizes[0], spec.moe_intermediate_size, static_cast<int>(e)});
  }
  list.insert(list.end() - 1, moe.begin(), moe.end());
  return list;
}

std::int64_t count_parameters(const ClassifierSpec& spec) {
  std::int64_t count = 0;
  for (const ClassifierLinear& linear : list_linears(spec)) count += linear.rows * (linear.cols + linear.bias);
  return count;
}

std::int64_t count_active_parameters(const ClassifierSpec& spec) {
  std::int64_t count = 0;
  for (const ClassifierLinear& linear : list_linears(spec)) {
    if (linear.expert < spec.router.num_experts_per_tok) count += linear.rows * (linear.cols + linear.bias);
  }
  return count;
}

std::int64_t count_flops(const ClassifierSpec& spec) {
  std::int64_t count = 0;
  for (const ClassifierLinear& linear : list_linears(spec)) {
    if (linear.expert < spec.router.num_experts_per_tok) count += 2 * linear.rows * linear.cols;
  }
  // Their Gram matrices.
  if (spec.routes_by_error()) count += 2 * spec.router.num_experts * spec.router_bottleneck * spec.router_bottleneck;
  return count;
}

bool is_classifier(const Json& config) {
  return config.is_object() && config.contains("model_type") && config["model_type"] == Json(kClassifierModelType);
}

ClassifierSpec classifier_spec(const Json& config, const std::string& where) {
  const ConfigReader reader(config, where);
  if (!is_classifier(config)) {
    throw Error(ErrorCode::unsupported, where + " is no classifier's",
                fmt::format("model_type {}", kClassifierModelType), "kedge train mnist makes one");
  }
  ClassifierSpec spec;
  const std::string network = reader.text_or("network", "");
  try {
    spec.network = parse_network(network);
  } catch (const Error&) {
    reader.fail("network", "\"" + network.substr(0, 40) + "\"", "ffn, moe or mcqsmoe");
  }
  spec.image_size = reader.integer("image_size", 1, 1024);
  spec.num_classes = reader.integer("num_classes", 2, kMaxSize);
  spec.image_mean = reader.number("image_mean", -1e6, 1e6);
  spec.image_std = reader.number("image_std", 1e-6, 1e6);
  spec.hidden_sizes = reader.integers_or_empty("hidden_sizes", 1, kMaxSize);
  if (spec.hidden_sizes.empty() || spec.hidden_sizes.size() > 64)
    reader.fail("hidden_sizes", "of no use", "1 to 64 sizes");
  if (!spec.has_moe()) return spec;
  if (spec.hidden_sizes.size() != 1) reader.fail("hidden_sizes", "too long for a moe", "one size");
  spec.moe_intermediate_size = reader.integer("moe_intermediate_size", 1, kMaxSize);
  spec.router.num_experts = reader.integer("num_experts", 1, kMaxExperts);
  spec.router.num_experts_per_tok = reader.integer("num_experts_per_tok", 1, spec.router.num_experts);
  if (spec.routes_by_error()) {
    spec.router_bottleneck = reader.integer("router_bottleneck", 1, spec.hidden_sizes[0]);
    spec.router_temperature = static_cast<float>(reader.number("router_temperature", 1e-12, 1e12));
  }
  return spec;
}

Json classifier_config(const ClassifierSpec& spec) {
  Json config = {{"model_type", kClassifierModelType}, {"network", network_name(spec.network)},
                 {"image_size", spec.image_size},      {"num_classes", spec.num_classes},
                 {"image_mean", spec.image_mean},      {"image_std", spec.image_std},
                 {"hidden_sizes", spec.hidden_sizes},  {"hidden_act", "relu"}};
  if (spec.has_moe()) {
    config["moe_intermediate_size"] = spec.moe_intermediate_size;
    config["num_experts"] = spec.router.num_experts;
    config["num_experts_per_tok"] = spec.router.num_experts_per_tok;
    config["norm_topk_prob"] = spec.routes_by_error();
  }
  if (spec.routes_by_error()) {
    config["router_bottleneck"] = spec.router_bottleneck;
    config["router_temperature"] = spec.router_temperature;
  }
  config["dtype"] = "float32";
  return config;
}

void normalize_images(const ClassifierSpec& spec, const unsigned char* grey, std::int64_t count, float* x) {
  float table[256];
  for (int level = 0; level < 256; ++level) {
    table[level] = static_cast<float>((level / 255.0 - spec.image_mean) / spec.image_std);
  }
  const std::int64_t size = count * spec.num_inputs();
  for (std::int64_t i = 0; i < size; ++i) x[i] = table[grey[i]];
}

}  // namespace kedge
