#include "ptq/recipe.h"

#include <utility>

#include "base/hash.h"
#include "base/json.h"
#include "kedge/error.h"
#include "ptq/methods.h"
#include "ptq/named_values.h"

namespace kedge {
namespace {

// Linear in the name's length for each '*': backtracks only to the last star.
bool glob_matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

constexpr std::pair<const char*, ScaleMethod> kScaleMethods[] = {{"minmax", ScaleMethod::minmax},
                                                                 {"mse", ScaleMethod::mse},
                                                                 {"full-range", ScaleMethod::full_range},
                                                                 {"row-search", ScaleMethod::row_search}};
constexpr std::pair<const char*, std::optional<DType>> kScaleDTypes[] = {
    {"auto", std::nullopt}, {"float32", DType::f32}, {"float16", DType::f16}, {"bfloat16", DType::bf16}};  // torch's
constexpr std::pair<const char*, ExpertFallback> kFallbacks[] = {
    {"all-tokens", ExpertFallback::all_tokens}, {"rtn", ExpertFallback::rtn}, {"error", ExpertFallback::error}};

constexpr std::pair<const char*, RefitWeighting> kWeightings[] = {{"boundary", RefitWeighting::boundary},
                                                                  {"none", RefitWeighting::none}};

void add_tuning(Json& json, const TuneParameters& tune, const MethodParameters& parameters) {
  json["iters"] = tune.iters;
  json["batch_size"] = tune.batch_size;
  json["lr"] = tune.learning_rate();
  json["seed"] = tune.seed;
  json["device"] = tune.device;
  json["compute_dtype"] = compute_dtype_name(tune.compute_dtype);
  json["base"] = tune_base_name(tune.base);
  json["objective"] = objective_text(tune.objective);
  json["expert_fallback"] = expert_fallback_name(parameters.expert_fallback);
  json["min_expert_tokens"] = parameters.min_expert_tokens;
  if (!tune.routes()) return;
  json["router"] = tune_router_name(tune.router);
  json["loss_k"] = tune.loss_k;
  json["loss_m"] = tune.loss_m;
  json["gamma"] = tune.gamma;
  json["tau"] = tune.tau;
  json["phi"] = hinge_shape_name(tune.phi);
  json["value_weights"] = value_weights_name(tune.value_weights);
  json["centring"] = tune.centring;
}

}  // namespace

const char* scale_method_name(ScaleMethod search) noexcept { return name_in(kScaleMethods, search); }
ScaleMethod parse_scale_method(std::string_view name) { return value_in(kScaleMethods, name, "scale search"); }
const char* expert_fallback_name(ExpertFallback fallback) noexcept { return name_in(kFallbacks, fallback); }
ExpertFallback parse_expert_fallback(std::string_view name) { return value_in(kFallbacks, name, "expert fallback"); }

RefitWeighting parse_refit_weighting(std::string_view name) { return value_in(kWeightings, name, "refit weighting"); }
std::optional<DType> parse_scale_dtype(std::string_view name) { return value_in(kScaleDTypes, name, "scale type"); }

ModulePattern::ModulePattern(std::string pattern) : text_(std::move(pattern)) {
  const bool is_regex = text_.starts_with("re:");
  if (text_.size() <= (is_regex ? 3u : 0u)) {
    throw Error(ErrorCode::usage, "the override pattern \"" + text_ + "\" is empty",
                "a glob over module names or re: and a regular expression");
  }
  if (!is_regex) return;
  regex_ = NamePattern::compile(std::string_view(text_).substr(3));
  if (!regex_) {
    throw Error(ErrorCode::usage,
                "the override pattern \"" + text_ + "\" is malformed or uses what kedge does not read",
                "a regular expression without look-around, back references and flags");
  }
}

bool ModulePattern::matches(std::string_view name) const {
  return regex_ ? regex_->matches_prefix(name) : glob_matches(text_, name);
}

Json Recipe::to_json() const {
  Json json;
  json["scheme"] = scheme.name;
  json["method"] = method;
  json["overrides"] = Json::array();
  for (const Override& override : overrides) {
    json["overrides"].push_back(
        {{"pattern", override.pattern.text()}, {"scheme", override.scheme ? override.scheme->name : "none"}});
  }
  const MethodNeeds needs = find_quant_method(method).needs;
  if (needs == MethodNeeds::torch) add_tuning(json, tune, parameters);
  if (needs == MethodNeeds::calibration) {
    json["damping"] = parameters.damping;
    if (find_quant_method(method).shaped) {
      json["routing_weight"] = parameters.routing_weight;
      json["residual_weight"] = parameters.residual_weight;
    } else {
      json["act_order"] = parameters.act_order;
    }
    if (find_quant_method(method).asymmetric) json["gptaq_alpha"] = parameters.gptaq_alpha;
    json["gate_weighted"] = parameters.gate_weighted;
    json["expert_fallback"] = expert_fallback_name(parameters.expert_fallback);
    json["min_expert_tokens"] = parameters.min_expert_tokens;
  }
  if (parameters.scale_search != ScaleMethod::minmax) json["scale_search"] = scale_method_name(parameters.scale_search);
  if (refit.enabled) {
    json["router_refit"] = true;
    json["refit_ridge"] = refit.ridge;
    json["refit_weighting"] = name_in(kWeightings, refit.weighting);
    json["refit_tau_margins"] = refit.tau_margins;
  }
  if (mixed.enabled()) {
    json["target_bits"] = mixed.target_bits;
    json["bits_per"] = bits_per_name(mixed.per);
    json["sensitivity"] = sensitivity_name(mixed.sensitivity);
  }
  if (scale_dtype) json["scale_dtype"] = name_in(kScaleDTypes, scale_dtype);
  return json;
}

bool Recipe::calibrated() const {
  return refit.enabled || mixed.enabled() || find_quant_method(method).needs != MethodNeeds::nothing;
}

std::string Recipe::hash() const { return sha256_hex(to_json().dump()); }

}  // namespace kedge
