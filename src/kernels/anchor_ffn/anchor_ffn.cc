#include "kernels/anchor_ffn/anchor_ffn.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/moe_ffn/combine.h"
#include "kernels/swiglu/activation.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {
namespace {

/// x [T, H] -> [P, H] in the permutation's order, in the caller's arena scope.
const float* copy_rows(const ExecContext& ctx, const float* x, const TokenPermutation& permutation,
                       std::int64_t hidden) {
  const auto pairs = static_cast<std::int64_t>(permutation.token.size());
  float* out = ctx.scratch.take<float>(pairs * hidden);
  ctx.threads.parallel_for(pairs, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t p = begin; p < end; ++p) {
      std::copy_n(x + permutation.token[static_cast<std::size_t>(p)] * hidden, hidden, out + p * hidden);
    }
  });
  return out;
}

}  // namespace

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
                const AnchorFfnDesc& desc, const AnchorFfnWeights& experts, float* y, const AnchorFfnOptions& options) {
  KEDGE_CHECK(experts.up.experts() == desc.num_experts && experts.down.experts() == desc.num_experts);
  KEDGE_CHECK(!desc.gated || experts.gate.experts() == desc.num_experts);
  if (permutation.tokens == 0) return;
  ArenaScope scope(ctx.scratch);
  const std::int64_t pairs = permutation.tokens * permutation.top_k, size = desc.intermediate_size;
  const Isa isa = options.isa;
  GroupedRows in{x, permutation.tokens, permutation.token, permutation.offsets};
  if (options.rows == ExpertRows::copied)
    in = {copy_rows(ctx, x, permutation, desc.hidden_size), pairs, {}, permutation.offsets};
  float* h = options.intermediate != nullptr ? options.intermediate : ctx.scratch.take<float>(pairs * size);
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
  if (y == nullptr) return;
  const GroupedRows hidden{h, pairs, {}, permutation.offsets};
  if (!experts.down.anchor_is_linear()) {
    anchor_gemm_grouped(ctx, hidden, experts.down, out);
    combine_pairs(ctx, out, permutation, weights, desc.hidden_size, y, isa);
    return;
  }
  anchor_gemm_deltas(ctx, hidden, experts.down, out);
  combine_pairs(ctx, out, permutation, weights, desc.hidden_size, y, isa);
  float* mean = ctx.scratch.take<float>(permutation.tokens * size);
  combine_pairs(ctx, h, permutation, weights, size, mean, isa);
  anchor_gemm_shared(ctx, mean, permutation.tokens, experts.down, y);
}

std::size_t AnchorFfnWeights::active_bytes(std::int64_t top_k) const noexcept {
  std::size_t bytes = 0;
  for (const PackedExpertMatrices* w : {&gate, &up, &down}) {
    if (w->experts() == 0) continue;
    const std::size_t anchor = w->shared_bytes();
    bytes +=
        anchor + (w->num_bytes() - anchor) / static_cast<std::size_t>(w->experts()) * static_cast<std::size_t>(top_k);
  }
  return bytes;
}

std::string explain_anchor_ffn(const AnchorFfnDesc& desc, const AnchorFfnWeights& experts, std::int64_t tokens) {
  std::string text;
  const auto add = [&](const char* name, const PackedExpertMatrices& w, const char* per) {
    if (w.experts() == 0) return;
    text += std::string("  ") + name + ": ";
    if (w.form() == AnchorForm::fused) {
      text += "fused, anchor and deltas are added up in registers, once per expert; a batch decodes the anchor once\n";
    } else if (w.form() == AnchorForm::split) {
      text += std::string("split, x A^T once per ") + per +
              " and x D^T per expert (fused: refused, int8 activations)\n" +
              explain_gemm(w.anchor_.desc_, w.anchor_.options_, tokens);
    } else {
      text += "one matrix per expert, nothing is shared or the anchor is decoded into it at load\n";
    }
    text += explain_gemm(w.parts_.front().desc_, w.parts_.front().options_, tokens);
  };
  add("gate", experts.gate, "token");
  add("up", experts.up, "token");
  add("down", experts.down, experts.down.anchor_is_linear() ? "token" : "pair of token and expert");
  return text;
}

}  // namespace kedge
