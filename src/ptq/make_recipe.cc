#include "ptq/make_recipe.h"

#include <optional>
#include <utility>

#include "ptq/methods.h"

namespace kedge {
namespace {

// The best of the methods without gradients: docs/quantization.md has the comparison.
constexpr const char* kBestMethod = "gptaq";

bool is_auto(const QuantizeOptions& options) { return options.method == "auto"; }

MethodParameters method_parameters(const QuantizeOptions& options) {
  MethodParameters parameters;
  parameters.damping = options.damping;
  parameters.gptaq_alpha = options.gptaq_alpha;
  parameters.act_order = options.act_order.value_or(is_auto(options));
  parameters.scale_search = parse_scale_method(options.scale_search);
  parameters.gate_weighted = options.gate_weighted;
  parameters.expert_fallback = parse_expert_fallback(options.expert_fallback);
  parameters.min_expert_tokens = options.min_expert_tokens;
  return parameters;
}

}  // namespace

Recipe make_recipe(const QuantizeOptions& options) {
  Recipe recipe;
  recipe.scheme = parse_scheme(options.scheme);
  recipe.method = find_quant_method(is_auto(options) ? kBestMethod : options.method).name;
  recipe.scale_dtype = parse_scale_dtype(options.scale_dtype);
  recipe.parameters = method_parameters(options);
  recipe.refit.enabled = options.router_refit.value_or(is_auto(options));
  recipe.refit.ridge = options.refit_ridge;
  recipe.refit.weighting = parse_refit_weighting(options.refit_weighting);
  recipe.refit.tau_margins = options.refit_tau_margins;
  for (const QuantizeOverride& override : options.overrides) {
    std::optional<QuantScheme> scheme;
    if (override.scheme != "none") scheme = parse_scheme(override.scheme);
    recipe.overrides.push_back({ModulePattern(override.pattern), std::move(scheme)});
  }
  return recipe;
}

}  // namespace kedge
