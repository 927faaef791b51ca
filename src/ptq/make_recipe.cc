#include "ptq/make_recipe.h"

#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "kedge/error.h"
#include "ptq/methods.h"
#include "ptq/tune.h"

namespace kedge {
namespace {

// The best of the methods without gradients: docs/quantization.md has the comparison.
constexpr const char* kBestMethod = "kedge";

const QuantMethod& method_of(const QuantizeOptions& options) {
  return find_quant_method(options.method == "auto" ? kBestMethod : options.method);
}

MethodParameters method_parameters(const QuantizeOptions& options) {
  MethodParameters parameters;
  parameters.damping = options.damping;
  parameters.gptaq_alpha = options.gptaq_alpha;
  parameters.act_order = options.act_order.value_or(false);
  parameters.scale_search = !options.scale_search.empty() ? parse_scale_method(options.scale_search)
                            : method_of(options).shaped   ? ScaleMethod::row_search
                                                          : ScaleMethod::minmax;
  parameters.routing_weight = options.routing_weight;
  parameters.residual_weight = options.residual_weight;
  parameters.gate_weighted = options.gate_weighted;
  parameters.expert_fallback = parse_expert_fallback(options.expert_fallback);
  parameters.min_expert_tokens = options.min_expert_tokens;
  return parameters;
}

TuneParameters tune_parameters(const QuantizeOptions& options) {
  const TunePreset& preset = tune_preset(options.method);
  TuneParameters tune;
  tune.iters = options.iters;
  tune.batch_size = options.batch_size;
  tune.lr = options.lr;
  tune.seed = options.calibration.seed;
  tune.device = options.device;
  tune.compute_dtype = parse_compute_dtype(options.compute_dtype);
  tune.base = parse_tune_base(options.base);
  tune.router = options.router.empty() ? preset.router : parse_tune_router(options.router);
  tune.objective = parse_objective(options.objective.empty() ? preset.objective : options.objective);
  tune.loss_k = options.loss_k;
  tune.loss_m = options.loss_m;
  tune.gamma = options.gamma;
  tune.tau = options.tau;
  tune.phi = parse_hinge_shape(options.phi);
  tune.value_weights = parse_value_weights(options.value_weights);
  tune.centring = options.centring;
  if (tune.iters < 0 || tune.batch_size < 1 || !(tune.lr >= 0 && tune.lr <= 1) || tune.loss_k < 0 || tune.loss_m < 0 ||
      !(tune.gamma > 0) || !(tune.tau > 0)) {
    throw Error(ErrorCode::usage, "a tuning parameter is out of its range",
                "iters, loss_k and loss_m not below 0, batch_size from 1, lr from 0 to 1, gamma and tau above 0");
  }
  return tune;
}

/// Methods whose scales are their own matter, or that have no error feedback to try scales with.
void check_scale_search(const QuantizeOptions& options) {
  const QuantMethod& method = method_of(options);
  if (options.scale_search == "row-search" && !method.feeds_back) {
    throw Error(ErrorCode::usage, fmt::format("the method {} has no error feedback to search scales with", method.name),
                "a method with error feedback, such as kedge or gptq", "choose another --scale-search");
  }
  const bool own = method.needs == MethodNeeds::torch || std::string_view(method.name) == "rtn-mse";
  if (!own || options.scale_search.empty()) return;
  throw Error(ErrorCode::usage, fmt::format("the method {} finds its scales by itself", method.name),
              "no --scale-search", "leave it out");
}

void check_anchor(const QuantizeOptions& options, const QuantScheme& scheme) {
  if (!scheme.anchor) return;
  if (!method_of(options).anchored) {
    std::string names;
    for (const QuantMethod& method : quant_methods()) {
      if (method.anchored) names += (names.empty() ? "" : ", ") + std::string(method.name);
    }
    throw Error(ErrorCode::unsupported,
                "the method " + std::string(method_of(options).name) + " does not round deltas on a shared anchor",
                "one of " + names);
  }
  if (options.target_bits > 0) {
    throw Error(ErrorCode::usage, "a shared anchor and --target-bits are both given", "one of the two",
                "mixed precision is for schemes such as w4a16-g64");
  }
}

}  // namespace

Recipe make_recipe(const QuantizeOptions& options) {
  Recipe recipe;
  recipe.scheme = parse_weight_scheme(options.scheme);
  check_anchor(options, recipe.scheme);
  recipe.method = method_of(options).name;
  recipe.scale_dtype = parse_scale_dtype(options.scale_dtype);
  if (method_of(options).shaped && options.act_order == false) {
    throw Error(ErrorCode::usage, "the method kedge has no other order of columns", "act-order on, or left out",
                "choose --method gptaq for columns as they stand");
  }
  check_scale_search(options);
  recipe.parameters = method_parameters(options);
  recipe.refit.enabled = options.router_refit.value_or(method_of(options).shaped);
  recipe.refit.ridge = options.refit_ridge;
  recipe.refit.weighting = parse_refit_weighting(options.refit_weighting);
  recipe.refit.tau_margins = options.refit_tau_margins;
  recipe.mixed = {options.target_bits, parse_bits_per(options.bits_per), parse_sensitivity(options.sensitivity)};
  if (find_quant_method(recipe.method).needs == MethodNeeds::torch) recipe.tune = tune_parameters(options);
  for (const QuantizeOverride& override : options.overrides) {
    std::optional<QuantScheme> scheme;
    if (override.scheme != "none") scheme = parse_matrix_scheme(override.scheme);
    recipe.overrides.push_back({ModulePattern(override.pattern), std::move(scheme)});
  }
  return recipe;
}

}  // namespace kedge
