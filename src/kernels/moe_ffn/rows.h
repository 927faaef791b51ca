// The rows of moe_ffn. All compute the same bits (moe_ffn.h).
#pragma once

#include <span>

#include "kernels/moe_ffn/combine.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

struct MoeFfnCall {
  const float* x;
  const TokenPermutation* permutation;
  const float* weights;
  const ExpertFfnDesc* desc;
  const PackedExperts* experts;
  float* y;
  float* intermediate;  ///< may be null
};

struct MoeFfnRow {
  const char* name;
  /// Null when the row serves these experts, else the reason why not.
  const char* (*refusal)(const ExpertFfnDesc& desc, const PackedExperts& experts);
  void (*run)(const ExecContext& ctx, const MoeFfnCall& call);
};

/// Best first, the reference last.
std::span<const MoeFfnRow> moe_ffn_table() noexcept;

/// grouped_gemm, gated_activation, grouped_gemm, then the combination.
void moe_ffn_reference(const ExecContext& ctx, const MoeFfnCall& call);
/// gate, up and activation in one task; down and the combination in one task where the pairs are few.
void moe_ffn_fused(const ExecContext& ctx, const MoeFfnCall& call);

/// The row of combine.h for an instruction set.
CombineFunction combine_for(Isa isa) noexcept;
/// The instruction set that the experts were packed for.
Isa experts_isa(const PackedExperts& experts) noexcept;

}  // namespace kedge
