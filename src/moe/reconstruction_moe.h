// A MoE layer routed by reconstruction error (MCQSMoE).
//
//   reconstruction  o_e = x^_e = V_e phi(U_e x)              the experts are the autoencoders themselves
//   ffn             o_e = the FFN of expert e, which owns one beside the autoencoder that only routes
// y = the selected o_e, combined (error_router.h). `reconstruction` has no sparsity of compute: every encoder runs for
// every token, and with untied decoders or Huber every decoder too. `ffn` has.
//
// Scratch comes from the arena: a batch no larger than one before takes no memory. Serial or parallel is the thread
// pool's size, and changes no bit.
// Source: MCQSMoE (2026), sections 2.1 and 2.3; the exact product after row normalization: quant/anchor_delta.h.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/anchor_ffn/anchor_ffn.h"
#include "moe/reconstruction_router.h"
#include "moe/router.h"
#include "moe/routing_audit.h"

namespace kedge {

enum class ExpertOutput : std::uint8_t { reconstruction, ffn };
const char* expert_output_name(ExpertOutput) noexcept;  ///< "reconstruction", "ffn"

struct ReconstructionMoe {
  ErrorRouterSpec router;
  ExpertOutput output = ExpertOutput::reconstruction;
  // Of the output ffn:
  std::int64_t intermediate_size = 0;
  FfnActivation hidden_act = FfnActivation::gelu;
  bool gated = false;  ///< gate, up, down; otherwise up and down
  // How training makes the matrices; a forward pass takes them as they are.
  std::optional<AnchorDeltaArgs> anchor_delta = {};  ///< of the FFNs' stacks; none: plain matrices
  Manifold encoder_manifold = Manifold::none;   ///< stiefel_*: router.orthonormal
};

/// The layer's router as traces and audits know routers, logits z = -err / T: a softmax over the selected is what the
/// softmin weights are, and a softmax over all is P of the balance loss.
RouterSpec as_router_spec(const ReconstructionMoe& spec) noexcept;

/// Views; what is not needed stays empty.
struct ReconstructionMoeWeights {
  ExpertMatrices encoder;         ///< [E, r, d]
  ExpertMatrices decoder;         ///< [E, d, r], only untied
  ExpertMatrices gate, up, down;  ///< [E, f, d], [E, f, d], [E, d, f], only ffn (gate: only gated)
};

/// Floating-point operations (a multiply-add is two) of the matrix products.
struct LayerFlops {
  std::int64_t routing = 0;  ///< encoders, Gram products, reconstructions that only measure an error
  std::int64_t experts = 0;  ///< what the selected experts compute
};

class ReconstructionMoeBlock {
 public:
  /// Error(mismatch) where a matrix is missing, in excess, or of another size.
  static ReconstructionMoeBlock load(const ReconstructionMoe& spec, const ReconstructionMoeWeights& weights,
                                     AnchorForm form, const LoadOptions& options);
  /// x, y: [T, d]; must not overlap. audit (may be null) receives the batch's. layer names it to the probe, which sees
  /// moe_input and, with the errors and residual norms, routing; both logits and scores are as_router_spec's. rows: of
  /// the output ffn.
  void forward(const ExecContext& ctx, int layer, const float* x, std::int64_t tokens, float* y,
               RoutingAudit* audit = nullptr, ExpertRows rows = ExpertRows::in_place) const;

  /// Only the routing, for the probe, which must want it; without residual norms, for no expert runs.
  void observe_routing(const ExecContext& ctx, int layer, const float* x, std::int64_t tokens) const;

  LayerFlops flops(std::int64_t tokens) const noexcept;
  std::size_t num_bytes() const noexcept;
  /// What one token reads: all encoders, and of the experts its share.
  std::size_t active_bytes() const noexcept;
  std::string explain() const;
  const ReconstructionMoe& spec() const noexcept { return spec_; }

 private:
  void run_decoders(const ExecContext& ctx, const ErrorRouting& routing, const TokenPermutation& permutation,
                    float* y) const;

  ReconstructionMoe spec_;
  Isa isa_ = Isa::scalar;
  ReconstructionRouter router_;
  PackedExpertMatrices decoders_;  ///< reconstruction
  AnchorFfnDesc desc_;
  AnchorFfnWeights ffn_;
};

}  // namespace kedge
