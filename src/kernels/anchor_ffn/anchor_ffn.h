// The expert FFNs of a layer whose matrices may share anchors, gated or of two matrices.
//
//   gated         h[p] = act(W_gate[e] x[t]) * (W_up[e] x[t])      for each (token t, slot s) routed to expert e
//   two matrices  h[p] = act(W_up[e] x[t])
//   y[t] = sum over slots s ascending of weights[t, s] * W_down[e] h[p],  an fp32 FMA chain from 0
//
// A split anchor's product with x (kernels/anchor_gemm) is made once per token for gate and up. down's inputs differ by
// expert, so it is made once per pair, unless rows are not scaled (no sphere): then
//   y[t] = sum_s weights[t, s] D_e h[p]  +  A (sum_s weights[t, s] h[p])
// with either sum a chain as above, and once per token is enough. One implementation, composed of anchor_gemm: threads
// split outputs; x is gathered where it lies; scratch comes from the arena, which takes no memory once it has seen a
// batch of this size.
#pragma once

#include <cstdint>
#include <string>

#include "base/exec.h"
#include "kernels/anchor_gemm/anchor_gemm.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

struct AnchorFfnDesc {
  std::int64_t num_experts = 0, hidden_size = 0, intermediate_size = 0;
  FfnActivation activation = FfnActivation::gelu;
  bool gated = false;
};

struct AnchorFfnWeights {
  PackedExpertMatrices gate;      ///< [E, I, H]; empty unless gated
  PackedExpertMatrices up, down;  ///< [E, I, H], [E, H, I]

  std::size_t num_bytes() const noexcept { return gate.num_bytes() + up.num_bytes() + down.num_bytes(); }
  /// Read for one token of k experts: anchors whole, of deltas and plain matrices k of E.
  std::size_t active_bytes(std::int64_t top_k) const noexcept;
};

/// How experts get their rows of x; the same bits either way.
enum class ExpertRows : std::uint8_t {
  in_place,  ///< gathered where they lie: no batch per expert
  copied,  ///< a batch [P, H] in the permutation's order is written first, as a layer without a gathering product does
};

struct AnchorFfnOptions {
  Isa isa = Isa::scalar;
  float* intermediate = nullptr;  ///< receives h [P, I] in the permutation's order; may be null
  ExpertRows rows = ExpertRows::in_place;
};

/// x, y: [T, H]; weights: [T, k].
void anchor_ffn(const ExecContext& ctx, const float* x, const TokenPermutation& permutation, const float* weights,
                const AnchorFfnDesc& desc, const AnchorFfnWeights& experts, float* y, const AnchorFfnOptions& options);
/// Which form each matrix has, why, and the kernels that serve it.
std::string explain_anchor_ffn(const AnchorFfnDesc& desc, const AnchorFfnWeights& experts, std::int64_t tokens);

/// y[t] = sum over slots of weights[t, s] pairs[pair_of[t, s]], a chain as above. pairs: [P, size]; y: [T, size].
void combine_pairs(const ExecContext& ctx, const float* pairs, const TokenPermutation& permutation,
                   const float* weights, std::int64_t size, float* y, Isa isa);

}  // namespace kedge
