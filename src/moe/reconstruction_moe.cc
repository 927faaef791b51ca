#include "moe/reconstruction_moe.h"

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/reduce/reduce.h"
#include "moe/permutation.h"
#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {
namespace {

void check_present(const ExpertMatrices& weights, bool wanted, const char* name) {
  if (weights.empty() != wanted) return;
  throw Error(ErrorCode::mismatch,
              wanted ? "the layer has no " + std::string(name) + " weights"
                     : "the layer has " + std::string(name) + " weights that nothing reads",
              "the matrices that the layer's spec names, and no others");
}

bool is_observed(const ExecContext& ctx) { return ctx.probe != nullptr && ctx.probe->wants(Site::routing); }

/// residual_norms: [T], or empty.
void report_routing(const ExecContext& ctx, int layer, const ErrorRouterSpec& spec, const ErrorRouting& routing,
                    std::int64_t tokens, std::span<const float> residual_norms) {
  ArenaScope scope(ctx.scratch);
  const std::int64_t experts = spec.num_experts, pairs = tokens * spec.slots();
  float* scores = ctx.scratch.take<float>(tokens * experts);
  for (std::int64_t i = 0; i < tokens * experts; ++i) scores[i] = -routing.errors[i] / spec.temperature;
  RoutingDecision decision;
  decision.tokens = tokens;
  decision.num_experts = experts;
  decision.top_k = spec.slots();
  decision.expert_ids = {routing.expert_ids, static_cast<std::size_t>(pairs)};
  decision.weights = {routing.weights, static_cast<std::size_t>(pairs)};
  decision.logits = decision.scores = {scores, static_cast<std::size_t>(tokens * experts)};
  if (!spec.is_learned()) {
    decision.errors = {routing.errors, static_cast<std::size_t>(tokens * experts)};
    decision.residual_norms = residual_norms;
  }
  ctx.probe->routing(layer, decision);
}

/// ||x - y|| of each token, in scratch.
std::span<const float> norms_of(const ExecContext& ctx, const float* x, const float* y, std::int64_t tokens,
                                std::int64_t size, Isa isa) {
  float* norms = ctx.scratch.take<float>(tokens);
  const ReduceKernels& reduce = reduce_kernels(isa);
  for (std::int64_t t = 0; t < tokens; ++t) {
    norms[t] = std::sqrt(reduce.squared_distance(x + t * size, y + t * size, size));
  }
  return {norms, static_cast<std::size_t>(tokens)};
}

}  // namespace

const char* expert_output_name(ExpertOutput output) noexcept {
  return output == ExpertOutput::ffn ? "ffn" : "reconstruction";
}

RouterSpec as_router_spec(const ReconstructionMoe& spec) noexcept {
  return {.scoring_func = ScoringFunc::softmax,
          .num_experts = spec.router.num_experts,
          .num_experts_per_tok = spec.router.slots(),
          .norm_topk_prob = true};
}

ReconstructionMoeBlock ReconstructionMoeBlock::load(const ReconstructionMoe& spec,
                                                    const ReconstructionMoeWeights& weights, AnchorForm form,
                                                    const LoadOptions& options) {
  const bool ffn = spec.output == ExpertOutput::ffn;
  check_present(weights.encoder, true, "encoder");
  check_present(weights.gate, ffn && spec.gated, "gate");
  check_present(weights.up, ffn, "up");
  check_present(weights.down, ffn, "down");
  if (!ffn && spec.router.is_learned()) {
    throw Error(ErrorCode::usage, "a learned router whose experts are the autoencoders of error routing",
                "the output ffn");
  }
  if (ffn && spec.intermediate_size < 1) {
    throw Error(ErrorCode::usage, "an FFN of " + std::to_string(spec.intermediate_size) + " hidden units",
                "at least 1");
  }
  ReconstructionMoeBlock block;
  block.spec_ = spec;
  block.isa_ = options.isa;
  block.router_ = ReconstructionRouter::load(spec.router, weights.encoder, weights.decoder, form, options);

  const std::int64_t experts = spec.router.num_experts, r = spec.router.bottleneck, d = spec.router.hidden_size;
  const auto pack = [&](const ExpertMatrices& w, std::int64_t n, std::int64_t k, const char* name) {
    return PackedExpertMatrices(w, experts, n, k, false, form, options, name);
  };
  if (!ffn && spec.router.tied) {
    const std::vector<float> transposed =
        transpose_experts(decode_experts(weights.encoder, experts, r, d, "encoders"), experts, r, d);
    block.decoders_ = pack({transposed, nullptr}, d, r, "decoders");
  } else if (!ffn) {
    block.decoders_ = pack(weights.decoder, d, r, "decoders");
  } else {
    const std::int64_t size = spec.intermediate_size;
    block.desc_ = {experts, d, size, spec.hidden_act, spec.gated};
    if (spec.gated) block.ffn_.gate = pack(weights.gate, size, d, "gate");
    block.ffn_.up = pack(weights.up, size, d, "up");
    block.ffn_.down = pack(weights.down, d, size, "down");
  }
  return block;
}

void ReconstructionMoeBlock::run_decoders(const ExecContext& ctx, const ErrorRouting& routing,
                                          const TokenPermutation& permutation, float* y) const {
  const std::int64_t experts = spec_.router.num_experts, d = spec_.router.hidden_size;
  const std::int64_t pairs = permutation.tokens * permutation.top_k;
  KEDGE_CHECK(permutation.tokens * experts <= std::numeric_limits<std::int32_t>::max());
  // Row t E + e of h [T, E, r] is what expert e makes of token t: gathered where it lies.
  std::int32_t* rows = ctx.scratch.take<std::int32_t>(pairs);
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int32_t p = permutation.offsets[static_cast<std::size_t>(e)];
         p < permutation.offsets[static_cast<std::size_t>(e) + 1]; ++p) {
      rows[p] = static_cast<std::int32_t>(permutation.token[static_cast<std::size_t>(p)] * experts + e);
    }
  }
  float* out = ctx.scratch.take<float>(pairs * d);
  anchor_gemm_grouped(
      ctx, {routing.hidden, permutation.tokens * experts, {rows, static_cast<std::size_t>(pairs)}, permutation.offsets},
      decoders_, out);
  combine_pairs(ctx, out, permutation, routing.weights, d, y, isa_);
}

void ReconstructionMoeBlock::forward(const ExecContext& ctx, int layer, const float* x, std::int64_t tokens, float* y,
                                     RoutingAudit* audit, ExpertRows rows) const {
  ArenaScope scope(ctx.scratch);
  const ErrorRouterSpec& router = spec_.router;
  if (ctx.probe != nullptr && ctx.probe->wants(Site::moe_input)) {
    ctx.probe->moe_input(layer, tokens, router.hidden_size, x);
  }
  const ErrorRouting routing = router_.route(ctx, x, tokens);
  const TokenPermutation permutation =
      make_permutation(routing.expert_ids, tokens, router.slots(), router.num_experts, ctx.scratch);
  if (spec_.output == ExpertOutput::ffn) {
    anchor_ffn(ctx, x, permutation, routing.weights, desc_, ffn_, y, {isa_, nullptr, rows});
  } else {
    run_decoders(ctx, routing, permutation, y);
  }
  if (router.combine == CombineMethod::residual) add_scaled(ctx, y, x, tokens * router.hidden_size, 1.0f);
  if (is_observed(ctx)) {
    report_routing(ctx, layer, router, routing, tokens, norms_of(ctx, x, y, tokens, router.hidden_size, isa_));
  }
  if (audit != nullptr) {
    *audit = audit_batch({tokens, router.num_experts, router.slots(), router.hidden_size, routing.expert_ids,
                          routing.weights, routing.errors, x, y},
                         isa_);
  }
}

void ReconstructionMoeBlock::observe_routing(const ExecContext& ctx, int layer, const float* x,
                                             std::int64_t tokens) const {
  KEDGE_CHECK(is_observed(ctx));
  ArenaScope scope(ctx.scratch);
  report_routing(ctx, layer, spec_.router, router_.route(ctx, x, tokens), tokens, {});
}

LayerFlops ReconstructionMoeBlock::flops(std::int64_t tokens) const noexcept {
  const std::int64_t slots = spec_.router.slots();
  // A split anchor's product is made once per token for gate and up, once per pair for what follows, unless that is
  // linear.
  const auto split = [](const PackedExpertMatrices& w) { return w.form() == AnchorForm::split ? 1 : 0; };
  const auto inner = [&](const PackedExpertMatrices& w) { return w.n() * w.k() * (slots + split(w)); };
  const auto last = [&](const PackedExpertMatrices& w) { return w.n() * w.k() * slots * (1 + split(w)); };
  const std::int64_t experts = inner(ffn_.gate) + inner(ffn_.up) + last(decoders_) +
                               (ffn_.down.anchor_is_linear() ? inner(ffn_.down) : last(ffn_.down));
  return {2 * tokens * router_.multiply_adds(), 2 * tokens * experts};
}

std::size_t ReconstructionMoeBlock::num_bytes() const noexcept {
  return router_.num_bytes() + decoders_.num_bytes() + ffn_.gate.num_bytes() + ffn_.up.num_bytes() +
         ffn_.down.num_bytes();
}

std::size_t ReconstructionMoeBlock::active_bytes() const noexcept {
  const auto experts = static_cast<std::size_t>(spec_.router.num_experts),
             slots = static_cast<std::size_t>(spec_.router.slots());
  std::size_t bytes = router_.num_bytes();
  for (const PackedExpertMatrices* w : {&decoders_, &ffn_.gate, &ffn_.up, &ffn_.down}) {
    const std::size_t shared = w->shared_bytes();
    bytes += shared + (w->num_bytes() - shared) * slots / experts;
  }
  return bytes;
}

std::string ReconstructionMoeBlock::explain() const {
  const PackedExpertMatrices& weights = spec_.output == ExpertOutput::ffn ? ffn_.up : decoders_;
  const LayerFlops one = flops(1);
  return router_.explain() + "experts: " + expert_output_name(spec_.output) + ", " + anchor_form_name(weights.form()) +
         ", " + std::to_string(one.experts) + " operations per token beside " + std::to_string(one.routing) +
         " for routing\n";
}

}  // namespace kedge
