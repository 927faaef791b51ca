// The whole expert FFN of a MoE layer: gather, gate, up, activation, (re)quantization, down, combine.
//
//   h[r]   = act(W_gate[e] x[t]) * (W_up[e] x[t])         for each (token t, slot s) routed to expert e
//   y[t]   = sum over slots s ascending of weights[t, s] * W_down[e(t, s)] h[t, s]
// The combination is an fp32 FMA chain in slot order, starting at 0. `reference` composes grouped_gemm.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/gemm/gemm.h"

namespace kedge {

enum class FfnActivation : std::uint8_t { silu, gelu, gelu_tanh, relu2 };

struct ExpertFfnDesc {
  std::int64_t num_experts = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  FfnActivation activation = FfnActivation::silu;
};

/// Token-expert pairs sorted by expert (stable: by token, then slot, within an expert). P = T * k pairs.
struct TokenPermutation {
  std::span<const std::int32_t> offsets;   ///< [E + 1] into the pairs
  std::span<const std::int32_t> token;     ///< [P] token of pair p
  std::span<const std::int32_t> pair_of;   ///< [T, k] position of (token, slot) among the sorted pairs
  std::int64_t tokens = 0;
  std::int64_t top_k = 0;
};

/// The weights of one expert, as loaded: gate and up [I, H], down [H, I].
struct ExpertWeights {
  PackedWeight gate, up, down;
};

struct AnchorFfnWeights;  // kernels/anchor_ffn/anchor_ffn.h

/// All experts of a layer in the layouts chosen for them, in one slab: an expert's matrix is often smaller than a huge
/// page. Filled expert by expert, so that a layer never stands in memory twice. Opaque outside src/kernels.
class PackedExperts {
 public:
  PackedExperts();
  ~PackedExperts();
  PackedExperts(PackedExperts&&) noexcept;
  PackedExperts& operator=(PackedExperts&&) noexcept;
  /// Takes a slab for `count` experts of the size of `first`, which becomes expert 0.
  PackedExperts(std::int64_t count, ExpertWeights first);
  /// Gated experts that share anchors; nothing is set() on them. isa: what they were packed for.
  PackedExperts(std::unique_ptr<AnchorFfnWeights> anchored, Isa isa);
  /// Moves an expert into the slab; one of another size (mixed bits) keeps memory of its own. May be called for
  /// different experts from several threads at once; every expert must be set before the first use.
  void set(std::int64_t expert, ExpertWeights weights);

  std::int64_t size() const noexcept;
  std::size_t num_bytes() const noexcept;
  /// Read for one token of k experts.
  std::size_t active_bytes(std::int64_t top_k) const noexcept;
  /// Not of anchored ones.
  const ExpertWeights& operator[](std::int64_t expert) const noexcept;
  const AnchorFfnWeights* anchored() const noexcept { return anchored_.get(); }
  Isa isa() const noexcept { return anchored_ ? isa_ : experts_.front().gate.options_.isa; }

 private:
  std::vector<ExpertWeights> experts_;
  Buffer slab_;
  std::size_t stride_ = 0;  ///< bytes of one expert in the slab
  std::unique_ptr<AnchorFfnWeights> anchored_;  ///< null: they share nothing
  Isa isa_ = Isa::scalar;
};

/// x, y: [T, H]; weights: [T, k]. intermediate (may be null): receives h [P, I] in the permutation's order. y null:
/// that alone is wanted.
void moe_ffn(const ExecContext& ctx, const float* x, const TokenPermutation& permutation, const float* weights,
             const ExpertFfnDesc& desc, const PackedExperts& experts, float* y, float* intermediate = nullptr);

/// The combination alone, for experts of another make: pairs [P, size] in the permutation's order, y [T, size].
void combine_experts(const ExecContext& ctx, const float* pairs, const TokenPermutation& permutation,
                     const float* weights, std::int64_t size, float* y, Isa isa);

std::string explain_moe_ffn(const ExpertFfnDesc& desc, const PackedExperts& experts, std::int64_t tokens);

}  // namespace kedge
