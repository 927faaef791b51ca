#include "claims/method_keys.h"

#include <type_traits>

#include "base/json.h"

namespace kedge {
namespace {

constexpr MethodKey kKeys[] = {
    {"method", [](QuantizeOptions& o) -> MethodField { return &o.method; }},
    {"scale-dtype", [](QuantizeOptions& o) -> MethodField { return &o.scale_dtype; }},
    {"override", [](QuantizeOptions& o) -> MethodField { return &o.overrides; }},
    {"calibration", [](QuantizeOptions& o) -> MethodField { return &o.calibration.files; }},
    {"calibration-field", [](QuantizeOptions& o) -> MethodField { return &o.calibration.field; }},
    {"nsamples", [](QuantizeOptions& o) -> MethodField { return &o.calibration.nsamples; }},
    {"seqlen", [](QuantizeOptions& o) -> MethodField { return &o.calibration.seqlen; }},
    {"router-refit", [](QuantizeOptions& o) -> MethodField { return &o.router_refit; }},
    {"refit-ridge", [](QuantizeOptions& o) -> MethodField { return &o.refit_ridge; }},
    {"refit-weighting", [](QuantizeOptions& o) -> MethodField { return &o.refit_weighting; }},
    {"refit-tau", [](QuantizeOptions& o) -> MethodField { return &o.refit_tau_margins; }},
    {"gptaq-alpha", [](QuantizeOptions& o) -> MethodField { return &o.gptaq_alpha; }},
    {"balance", [](QuantizeOptions& o) -> MethodField { return &o.calibration.balance; }},
    {"damping", [](QuantizeOptions& o) -> MethodField { return &o.damping; }},
    {"act-order", [](QuantizeOptions& o) -> MethodField { return &o.act_order; }},
    {"scale-search", [](QuantizeOptions& o) -> MethodField { return &o.scale_search; }},
    {"routing-weight", [](QuantizeOptions& o) -> MethodField { return &o.routing_weight; }},
    {"residual-weight", [](QuantizeOptions& o) -> MethodField { return &o.residual_weight; }},
    {"gate-weighted", [](QuantizeOptions& o) -> MethodField { return &o.gate_weighted; }},
    {"expert-fallback", [](QuantizeOptions& o) -> MethodField { return &o.expert_fallback; }},
    {"min-expert-tokens", [](QuantizeOptions& o) -> MethodField { return &o.min_expert_tokens; }},
    {"target-bits", [](QuantizeOptions& o) -> MethodField { return &o.target_bits; }},
    {"bits-per", [](QuantizeOptions& o) -> MethodField { return &o.bits_per; }},
    {"sensitivity", [](QuantizeOptions& o) -> MethodField { return &o.sensitivity; }},
    {"iters", [](QuantizeOptions& o) -> MethodField { return &o.iters; }},
    {"batch-size", [](QuantizeOptions& o) -> MethodField { return &o.batch_size; }},
    {"lr", [](QuantizeOptions& o) -> MethodField { return &o.lr; }},
    {"device", [](QuantizeOptions& o) -> MethodField { return &o.device; }},
    {"compute-dtype", [](QuantizeOptions& o) -> MethodField { return &o.compute_dtype; }},
    {"base", [](QuantizeOptions& o) -> MethodField { return &o.base; }},
    {"objective", [](QuantizeOptions& o) -> MethodField { return &o.objective; }},
    {"router", [](QuantizeOptions& o) -> MethodField { return &o.router; }},
    {"loss-k", [](QuantizeOptions& o) -> MethodField { return &o.loss_k; }},
    {"loss-m", [](QuantizeOptions& o) -> MethodField { return &o.loss_m; }},
    {"gamma", [](QuantizeOptions& o) -> MethodField { return &o.gamma; }},
    {"tau", [](QuantizeOptions& o) -> MethodField { return &o.tau; }},
    {"phi", [](QuantizeOptions& o) -> MethodField { return &o.phi; }},
    {"value-weights", [](QuantizeOptions& o) -> MethodField { return &o.value_weights; }},
    {"centring", [](QuantizeOptions& o) -> MethodField { return &o.centring; }},
};

constexpr ForeignKey kForeign[] = {
    {"scheme", "name it in \"schemes\", which all methods share"},
    {"seed", "name it in \"seeds\", which all methods share"},
    {"cache-dir", "set it in [calibration], for all methods"},
    {"threads", "give --threads to kedge ablate"},
    {"max-shard-size", "leave it out: it changes no weight"},
    {"recipe", "put its keys here"},
    {"data", "leave it out: it is of classifiers"},
    {"observer", "leave it out: it is of classifiers"},
    {"calibration-images", "leave it out: it is of classifiers"},
    {"dry-run", "leave it out: an ablation needs the weights"},
};

Json to_json(bool value) { return value; }
Json to_json(std::optional<bool> value) { return value ? Json(*value) : Json(nullptr); }
Json to_json(std::int64_t value) { return value; }
Json to_json(double value) { return value; }
Json to_json(const std::string& value) { return value; }
Json to_json(const std::vector<std::filesystem::path>& value) {
  Json out = Json::array();
  for (const auto& path : value) out.push_back(path.string());
  return out;
}
Json to_json(const std::vector<QuantizeOverride>& value) {
  Json out = Json::array();
  for (const QuantizeOverride& override : value) out.push_back(override.pattern + "=" + override.scheme);
  return out;
}

Json value_of(const MethodKey& key, QuantizeOptions& options) {
  return std::visit([](const auto* field) { return to_json(*field); }, key.field(options));
}

}  // namespace

std::span<const MethodKey> method_keys() noexcept { return kKeys; }
std::span<const ForeignKey> foreign_keys() noexcept { return kForeign; }

const MethodKey* find_method_key(std::string_view name) noexcept {
  for (const MethodKey& key : kKeys) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

Json method_settings(const QuantizeOptions& options) {
  QuantizeOptions given = options, defaults;
  given.calibration = defaults.calibration;
  given.calibration.balance = options.calibration.balance;  // how it is chosen is the method's matter
  Json out = Json::object();
  out["method"] = options.method;
  for (const MethodKey& key : kKeys) {
    const Json value = value_of(key, given);
    if (value != value_of(key, defaults)) out[key.name] = value;
  }
  return out;
}

}  // namespace kedge
