#include "kernels/anchor_ffn/anchor_ffn.h"

#include "base/check.h"
#include "kernels/moe_ffn/combine.h"
#include "kernels/swiglu/activation.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {

void combine_pairs(const ExecContext& ctx, const float* pairs, const TokenPermutation& permutation,
                   const float* weights, std::int64_t size, float* y, Isa isa) {
  const CombineFunction combine = isa == Isa::scalar ? combine_scalar
                                  : isa == Isa::avx2 ? combine_avx2
                                                     : combine_avx512;
  const std::int64_t k = permutation.top_k;
  ctx.threads.parallel_for(permutation.tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      combine({pairs, size, permutation.pair_of.data() + t * k, weights + t * k, k, size, y + t * size});
    }
  });
}

void anchor_ffn(const ExecContext& ctx, const float* x, const TokenPermutation& permutation, const float* weights,
                const AnchorFfnDesc& desc, const AnchorFfnWeights& experts, float* y, Isa isa) {
  KEDGE_CHECK(experts.up.experts() == desc.num_experts && experts.down.experts() == desc.num_experts);
  KEDGE_CHECK(!desc.gated || experts.gate.experts() == desc.num_experts);
  if (permutation.tokens == 0) return;
  ArenaScope scope(ctx.scratch);
  const std::int64_t pairs = permutation.tokens * permutation.top_k, size = desc.intermediate_size;
  const GroupedRows in{x, permutation.tokens, permutation.token, permutation.offsets};
  float* h = ctx.scratch.take<float>(pairs * size);
  float* out = ctx.scratch.take<float>(pairs * desc.hidden_size);
  if (desc.gated) {
    float* up = ctx.scratch.take<float>(pairs * size);
    anchor_gemm_grouped(ctx, in, experts.gate, h);
    anchor_gemm_grouped(ctx, in, experts.up, up);
    gated_activation(ctx, desc.activation, h, size, up, size, pairs, size, h, size, isa);
  } else {
    anchor_gemm_grouped(ctx, in, experts.up, h);
    activation(ctx, desc.activation, h, size, pairs, size, h, size, isa);
  }
  anchor_gemm_grouped(ctx, {h, pairs, {}, permutation.offsets}, experts.down, out);
  combine_pairs(ctx, out, permutation, weights, desc.hidden_size, y, isa);
}

}  // namespace kedge
