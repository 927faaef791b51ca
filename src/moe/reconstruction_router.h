// The autoencoders of error routing (error_router.h) as a module: all errors of a batch, and the selection.
//
// All encoders are one product [T, d] x [E r, d]. Reconstructing with every expert costs as much again, a dense layer's
// work, so the error is computed without it wherever an equal form exists:
//   gram        tied, squared or cosine:  V_e^T x is p_e, so with G_e = U_e U_e^T [r, r] made at load
//               ||x^||^2 = h.G h,  x.x^ = p.h,  err = ||x||^2 + h.(G h - 2 p)
//   stiefel     the same with orthonormal rows: G = I, no product at all
//   direct      untied decoders (the Gram form would need V^T V and V^T U: nothing is saved) and Huber, which has no
//   such
//               form. Every reconstruction is computed.
//   linear      the measure linear: a product with one row per expert
// gram and stiefel cancel where err << ||x||^2: they are right to about 1e-6 ||x||^2, and a selection may differ from
// the direct one only where errors lie closer than that. A squared or cosine error below 0 is rounding and becomes 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/anchor_gemm/anchor_gemm.h"
#include "moe/error_router.h"

namespace kedge {

enum class ErrorPath : std::uint8_t { gram, stiefel, direct, linear };
const char* error_path_name(ErrorPath path) noexcept;
/// Which form serves a spec.
ErrorPath error_path(const ErrorRouterSpec& spec) noexcept;

/// In the caller's arena scope.
struct ErrorRouting {
  const float* hidden = nullptr;             ///< [T, E, r], h
  const float* errors = nullptr;             ///< [T, E]
  const std::int32_t* expert_ids = nullptr;  ///< [T, slots]
  const float* weights = nullptr;            ///< [T, slots], as applied
};

class ReconstructionRouter {
 public:
  ReconstructionRouter() = default;
  /// encoders [E, r, d]; decoders [E, d, r], empty when tied. The arithmetic is fp32 and consistent whatever the
  /// options say. Errors: check_error_router's, those of packing, Error(mismatch) where rows that should be orthonormal
  /// are not (1e-5).
  static ReconstructionRouter load(const ErrorRouterSpec& spec, const ExpertMatrices& encoders,
                                   const ExpertMatrices& decoders, AnchorForm form, const LoadOptions& options);

  /// x: [T, d]. Takes what it returns from ctx.scratch.
  ErrorRouting route(const ExecContext& ctx, const float* x, std::int64_t tokens) const;
  /// Multiply-adds per token: encoders, Gram products, reconstructions of all experts.
  std::int64_t multiply_adds() const noexcept;
  std::size_t num_bytes() const noexcept;
  std::string explain() const;
  const ErrorRouterSpec& spec() const noexcept { return spec_; }

 private:
  void errors_from_codes(const ExecContext& ctx, const float* x, std::int64_t tokens, const float* p, const float* h,
                         float* errors) const;
  void errors_from_reconstructions(const ExecContext& ctx, const float* x, std::int64_t tokens, const float* h,
                                   float* errors) const;

  ErrorRouterSpec spec_;
  ErrorPath path_ = ErrorPath::direct;
  Isa isa_ = Isa::scalar;
  PackedExpertMatrices encoders_;    ///< stacked
  PackedExpertMatrices decoders_;    ///< direct only
  std::vector<PackedWeight> grams_;  ///< gram only: [E] of [r, r]
};

/// V_e = U_e^T of tied encoders in fp32: [E, r, d] -> [E, d, r].
std::vector<float> transpose_experts(const std::vector<float>& encoders, std::int64_t experts, std::int64_t r,
                                     std::int64_t d);

}  // namespace kedge
