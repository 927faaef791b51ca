// What methods that tune a layer by gradients take (ptq/methods_twin): steps, objective, router, base; as data, so that
// recipes hold it and programs without libtorch check it. Presets: a row for each such method.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace kedge {

/// Terms of an objective; the formulas stand in ptq/methods_twin/objectives.h.
enum class ObjectiveTerm { mse, topk_mse, kl, kl_full, value, order, boundary };
/// Whose logits the routing terms compare: the tuned layer's own router, that of the next MoE layer, or both.
enum class TuneRouter { same, next, both };
/// What is tuned: V, alpha and beta; or alpha, beta and a factor of each scale (kernels/fake_quant/fake_quant.h).
enum class TuneBase { rounding, clipping };
/// max(x, 0), or a smooth version of it.
enum class HingeShape { hinge, softplus };
/// w of the term `value`: 1; the routing output's sensitivity; that times the closeness to the top-k boundary.
enum class ValueWeights { none, sensitivity, boundary };

const char* objective_term_name(ObjectiveTerm term) noexcept;
const char* tune_router_name(TuneRouter router) noexcept;
const char* tune_base_name(TuneBase base) noexcept;
const char* compute_dtype_name(DType dtype) noexcept;  ///< "float32", "bfloat16"
const char* hinge_shape_name(HingeShape shape) noexcept;
const char* value_weights_name(ValueWeights weights) noexcept;
// Error(usage) lists what there is.
TuneRouter parse_tune_router(std::string_view name);
TuneBase parse_tune_base(std::string_view name);
DType parse_compute_dtype(std::string_view name);
HingeShape parse_hinge_shape(std::string_view name);
ValueWeights parse_value_weights(std::string_view name);

struct WeightedTerm {
  ObjectiveTerm term;
  double weight;  ///< a ratio: each term is divided by its value before the first step
};
/// "mse=1,value=0.05". Error(usage): an unknown or repeated term, a negative weight, mse without one.
std::vector<WeightedTerm> parse_objective(std::string_view text);
std::string objective_text(std::span<const WeightedTerm> objective);
bool is_routing_term(ObjectiveTerm term) noexcept;

struct TuneParameters {
  std::int64_t iters = 200;
  std::int64_t batch_size = 8;
  double lr = 0;  ///< 0: 1 / iters
  std::uint64_t seed = 42;
  std::string device = "auto";
  DType compute_dtype = DType::f32;  ///< of the matrix products, f32 or bf16; routers stay in fp32
  TuneBase base = TuneBase::rounding;
  TuneRouter router = TuneRouter::both;
  std::vector<WeightedTerm> objective;
  std::int64_t loss_k = 0;  ///< K; 0: by the term
  std::int64_t loss_m = 0;  ///< M; 0: 2 k
  double gamma = 1;         ///< in mean boundary margins
  double tau = 2;           ///< in mean boundary margins
  HingeShape phi = HingeShape::hinge;
  ValueWeights value_weights = ValueWeights::boundary;
  bool centring = true;  ///< of softmax routers' logits

  /// Has the objective a routing term?
  bool routes() const noexcept;
  double learning_rate() const noexcept { return lr > 0 ? lr : 1.0 / static_cast<double>(iters > 0 ? iters : 1); }
};

struct TunePreset {
  const char* method;
  const char* objective;
  TuneRouter router;
};
/// CHECKs that the method is one that tunes.
const TunePreset& tune_preset(std::string_view method);

}  // namespace kedge
