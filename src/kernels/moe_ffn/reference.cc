#include <cmath>

#include "kernels/grouped_gemm/grouped_gemm.h"
#include "kernels/moe_ffn/combine.h"
#include "kernels/moe_ffn/rows.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {

void combine_scalar(const CombineTask& t) noexcept {
  for (std::int64_t i = 0; i < t.size; ++i) {
    float acc = 0.0f;
    for (std::int64_t s = 0; s < t.slots; ++s) {
      acc = std::fma(t.weights[s], t.pairs[t.pair_of[s] * t.ld + i], acc);
    }
    t.y[i] = acc;
  }
}

void moe_ffn_reference(const ExecContext& ctx, const MoeFfnCall& call) {
  ArenaScope scope(ctx.scratch);
  const TokenPermutation& perm = *call.permutation;
  const ExpertFfnDesc& desc = *call.desc;
  const std::int64_t pairs = perm.tokens * perm.top_k, size = desc.intermediate_size, hidden = desc.hidden_size;
  auto** weights = ctx.scratch.take<const PackedWeight*>(desc.num_experts);
  const std::span<const PackedWeight* const> experts(weights, static_cast<std::size_t>(desc.num_experts));
  auto* gate = ctx.scratch.take<float>(pairs * size);
  auto* up = ctx.scratch.take<float>(pairs * size);
  float* h = call.intermediate != nullptr ? call.intermediate : gate;
  auto* out = ctx.scratch.take<float>(pairs * hidden);
  const auto product = [&](PackedWeight ExpertWeights::*which, const float* x, std::span<const std::int32_t> gather,
                           float* y) {
    for (std::int64_t e = 0; e < desc.num_experts; ++e) {
      weights[e] = &((*call.experts)[e].*which);
    }
    grouped_gemm(ctx, x, gather, perm.offsets, experts, y);
  };
  product(&ExpertWeights::gate, call.x, perm.token, gate);
  product(&ExpertWeights::up, call.x, perm.token, up);
  gated_activation(ctx, desc.activation, gate, size, up, size, pairs, size, h, size, experts_isa(*call.experts));
  if (call.y == nullptr) return;
  product(&ExpertWeights::down, h, {}, out);
  ctx.threads.parallel_for(perm.tokens, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      combine_scalar({out, hidden, perm.pair_of.data() + t * perm.top_k, call.weights + t * perm.top_k, perm.top_k,
                      hidden, call.y + t * hidden});
    }
  });
}

}  // namespace kedge
