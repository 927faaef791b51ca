// Routing by reconstruction error: each expert has a small autoencoder, and a token goes to the experts that
// reconstruct it best.
//
//   p_e = U_e x,  h_e = phi(p_e),  x^_e = V_e h_e         U_e [r, d], V_e [d, r]; tied: V_e = U_e^T
//   squared  ||x - x^_e||^2          cosine  1 - x.x^_e / (||x|| ||x^_e||), 1 where a norm is 0
//   huber    sum_i huber(x_i - x^_ei)
//   linear   -u_e.x, r = 1: no error but the negated logit of a learned router, in whose place error routing is
//   compared
// divided by nothing, by d, or by ||x||^2 (default: one temperature then serves all widths; 0 for a token of zeros).
// The k smallest errors are selected, ascending; ties go to the lower expert, NaN ranks last. Weights over the
// selected:
//   w_e = exp(-err_e / T) / sum, computed from (err_best - err_e) / T.
// With linear and T = 1 that is a softmax over the selected logits, as Mixtral's router has it.
//
// Source: MCQSMoE (2026), section 2.1, with T = 0.1. fp32, consistent in both numerics modes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

enum class ErrorMeasure : std::uint8_t { squared, cosine, huber, linear };
enum class ErrorNormalization : std::uint8_t { none, width, input };
/// How the selected experts' outputs o_e become y:
///   softmin   sum w_e o_e                   residual  x + sum w_e o_e
///   best      o_e of the least error alone  uniform   sum o_e / k
/// (x + sum w_e (o_e - x) would be softmin again, for the weights sum to 1.)
enum class CombineMethod : std::uint8_t { softmin, residual, best, uniform };

const char* error_measure_name(ErrorMeasure) noexcept;              ///< "squared", "cosine", "huber", "linear"
const char* error_normalization_name(ErrorNormalization) noexcept;  ///< "none", "width", "input"
const char* combine_method_name(CombineMethod) noexcept;            ///< "softmin", "residual", "best", "uniform"
ErrorMeasure parse_error_measure(std::string_view name);            ///< Error(usage), as the next two
ErrorNormalization parse_error_normalization(std::string_view name);
CombineMethod parse_combine_method(std::string_view name);

struct ErrorRouterSpec {
  std::int64_t hidden_size = 0;          ///< d
  std::int64_t bottleneck = 0;           ///< r
  std::int64_t num_experts = 0;          ///< E
  std::int64_t num_experts_per_tok = 0;  ///< k
  ErrorMeasure measure = ErrorMeasure::squared;
  ErrorNormalization normalization = ErrorNormalization::input;  ///< cosine, a ratio, and linear: none only
  float huber_delta = 1.0f;
  float temperature = 0.1f;
  bool trained_temperature = false;  ///< a layer's is `temperature` times exp of its weight gate.log_temperature
  CombineMethod combine = CombineMethod::softmin;
  std::optional<FfnActivation> activation;  ///< phi; none: linear
  bool tied = true;
  bool orthonormal = false;    ///< the rows of every U_e are (Stiefel manifold); checked at load
  bool always_direct = false;  ///< reconstruct with every expert even where a cheaper form of the error exists

  bool is_learned() const noexcept { return measure == ErrorMeasure::linear; }
  /// Experts that a token is computed with: k, or 1 with CombineMethod::best.
  std::int64_t slots() const noexcept { return combine == CombineMethod::best ? 1 : num_experts_per_tok; }
};

/// Error(usage) for a spec that cannot be: k > E, r > d, a temperature or delta that is not positive, ...
void check_error_router(const ErrorRouterSpec& spec);

/// errors [T, E] -> ids [T, slots] and the weights as applied.
void select_by_error(const ErrorRouterSpec& spec, const float* errors, std::int64_t tokens, std::int32_t* ids,
                     float* weights, Isa isa);

}  // namespace kedge
