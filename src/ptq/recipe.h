// Recipe: what is to be done to a checkpoint, as data. Its hash identifies it in manifests and partial folders.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/wire/name_pattern.h"
#include "ptq/mixed_precision.h"
#include "ptq/tune.h"
#include "quant/scale_search.h"
#include "quant/scheme.h"
#include "tensor/dtype.h"

namespace kedge {

/// "re:..." (anchored at the start only, as compressed-tensors' re.match) or a glob over the whole name.
class ModulePattern {
 public:
  /// Error(usage) for an empty pattern or a broken regular expression.
  explicit ModulePattern(std::string pattern);
  bool matches(std::string_view name) const;
  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
  std::optional<NamePattern> regex_;
};

struct Override {
  ModulePattern pattern;
  std::optional<QuantScheme> scheme;  ///< nullopt: "none"
};

/// Experts that see too few calibration tokens: calibrated on all tokens of their layer, rounded to nearest, or refused.
enum class ExpertFallback { all_tokens, rtn, error };
const char* scale_method_name(ScaleMethod method) noexcept;  ///< "minmax", "mse", "full-range", "row-search"
ScaleMethod parse_scale_method(std::string_view name);       ///< Error(usage)
const char* expert_fallback_name(ExpertFallback fallback) noexcept;  ///< "all-tokens", "rtn", "error"
ExpertFallback parse_expert_fallback(std::string_view name);         ///< Error(usage)

/// Which methods read what stands in their files.
struct MethodParameters {
  double damping = 0.01;  ///< of GPTQ's Hessian, times the mean of its diagonal
  bool act_order = false;
  double gptaq_alpha = 1.0;  ///< strength of GPTAQ's correction for the difference between the paths
  ScaleMethod scale_search = ScaleMethod::minmax;
  double routing_weight = 3;   ///< ratio of ptq/layers/output_metric.h
  double residual_weight = 0.5;  ///< of what the residual stream lost, the share that a layer is to make up for
  bool gate_weighted = false;  ///< Hessians of experts weighted by the gate's score
  ExpertFallback expert_fallback = ExpertFallback::all_tokens;
  std::int64_t min_expert_tokens = 128;
};

enum class RefitWeighting { none, boundary };
RefitWeighting parse_refit_weighting(std::string_view name);  ///< Error(usage)
/// ptq/layers/router_refit.h.
struct RefitParameters {
  bool enabled = false;
  double ridge = 0.01;
  RefitWeighting weighting = RefitWeighting::boundary;
  double tau_margins = 2.0;
};
/// "float32", "float16", "bfloat16"; "auto": nullopt. Error(usage) otherwise.
std::optional<DType> parse_scale_dtype(std::string_view name);

struct Recipe {
  QuantScheme scheme;
  std::string method;
  std::vector<Override> overrides;  ///< later ones win
  std::optional<DType> scale_dtype;  ///< nullopt: the type of the source's weight; a key only where it is set
  MethodParameters parameters;
  RefitParameters refit;
  TuneParameters tune;
  MixedPrecision mixed = {};  ///< the scheme is that of the widths' group and symmetry

  /// Does it need calibration data?
  bool calibrated() const;
  /// Keys that the method does not read are left out.
  nlohmann::ordered_json to_json() const;
  std::string hash() const;  ///< SHA-256 of the JSON text
};

}  // namespace kedge
