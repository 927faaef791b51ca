#include "moe/moe_block.h"

#include "moe/experts.h"
#include "moe/permutation.h"
#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {

MoeBlock MoeBlock::load(const WeightSource& source, const std::string& prefix, const Moe& spec,
                        std::int64_t hidden_size, const LoadOptions& options, ThreadPool* threads) {
  MoeBlock block;
  block.spec_ = spec;
  block.isa_ = options.isa;
  block.desc_.num_experts = spec.router.num_experts;
  block.desc_.hidden_size = hidden_size;
  block.desc_.intermediate_size = spec.moe_intermediate_size;
  block.desc_.activation = spec.hidden_act;
  block.router_ = Linear::load_router(source, prefix + ".gate", spec.router.num_experts, hidden_size, options);
  if (spec.router.selection_bias) {
    block.selection_bias_ = source.vector(prefix + ".gate.e_score_correction_bias", spec.router.num_experts);
  }
  block.experts_ = load_experts(source, prefix + ".experts", block.desc_, options, threads);
  if (spec.shared_expert_intermediate_size > 0) {
    const Mlp shared{spec.shared_expert_intermediate_size, spec.hidden_act};
    block.shared_ = MlpModule::load(source, prefix + ".shared_experts", shared, hidden_size, options);
  }
  return block;
}

MoeBlock::Selection MoeBlock::select(const ExecContext& ctx, int layer, const float* x, std::int64_t rows) const {
  const std::int64_t experts = spec_.router.num_experts, k = spec_.router.num_experts_per_tok;
  float* logits = ctx.scratch.take<float>(rows * experts);
  float* scores = ctx.scratch.take<float>(rows * experts);
  float* weights = ctx.scratch.take<float>(rows * k);
  std::int32_t* ids = ctx.scratch.take<std::int32_t>(rows * k);
  if (ctx.probe != nullptr && ctx.probe->wants(Site::moe_input)) {
    ctx.probe->moe_input(layer, rows, desc_.hidden_size, x);
  }
  router_.forward(ctx, x, rows, logits);
  ctx.threads.parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end, int) {
    route(spec_.router, logits + begin * experts, end - begin, selection_bias_, ids + begin * k, weights + begin * k,
          scores + begin * experts, isa_);
  });
  if (ctx.probe != nullptr && ctx.probe->wants(Site::routing)) {
    RoutingDecision decision;
    decision.tokens = rows;
    decision.num_experts = experts;
    decision.top_k = k;
    decision.expert_ids = {ids, static_cast<std::size_t>(rows * k)};
    decision.weights = {weights, static_cast<std::size_t>(rows * k)};
    decision.logits = {logits, static_cast<std::size_t>(rows * experts)};
    decision.scores = {scores, static_cast<std::size_t>(rows * experts)};
    ctx.probe->routing(layer, decision);
  }
  return {ids, weights};
}

void MoeBlock::observe_routing(const ExecContext& ctx, int layer, const float* x, std::int64_t rows) const {
  ArenaScope scope(ctx.scratch);
  select(ctx, layer, x, rows);
}

void MoeBlock::forward(const ExecContext& ctx, int layer, const float* x, std::int64_t rows, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t experts = spec_.router.num_experts, k = spec_.router.num_experts_per_tok;
  const std::int64_t hidden = desc_.hidden_size;
  const auto [ids, weights] = select(ctx, layer, x, rows);
  if (is_complete(ctx.probe)) return;
  const TokenPermutation permutation = make_permutation(ids, rows, k, experts, ctx.scratch);
  const bool observed = ctx.probe != nullptr && ctx.probe->wants(Site::expert_intermediate);
  float* intermediate = observed ? ctx.scratch.take<float>(rows * k * desc_.intermediate_size) : nullptr;
  const bool last = observed && ctx.probe->complete_after(static_cast<unsigned>(Site::expert_intermediate));
  moe_ffn(ctx, x, permutation, weights, desc_, experts_, last ? nullptr : y, intermediate);
  if (observed) {
    ctx.probe->expert_intermediate(layer, permutation.offsets, desc_.intermediate_size, intermediate);
    if (last) return;
  }
  if (spec_.shared_expert_intermediate_size > 0) {
    float* shared = ctx.scratch.take<float>(rows * hidden);
    shared_.forward(ctx, x, rows, shared);
    add_scaled(ctx, y, shared, rows * hidden, 1.0f);
  }
}

std::size_t MoeBlock::num_bytes() const noexcept {
  return router_.num_bytes() + selection_bias_.size() * sizeof(float) + experts_.num_bytes() + shared_.num_bytes();
}

std::size_t MoeBlock::active_bytes() const noexcept {
  return router_.num_bytes() + experts_.active_bytes(spec_.router.num_experts_per_tok) + shared_.num_bytes();
}

std::string MoeBlock::explain(std::int64_t tokens) const { return explain_moe_ffn(desc_, experts_, tokens); }

}  // namespace kedge
