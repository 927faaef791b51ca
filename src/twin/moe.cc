#include "twin/moe.h"

#include <limits>

#include <ATen/ops/split_with_sizes.h>
#include <fmt/format.h>

#include "base/check.h"
#include "twin/grouped.h"
#include "twin/pairs.h"

namespace kedge::twin {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
// moe/routers/sigmoid.cc: transformers adds this to the sum before dividing.
constexpr double kSumEpsilon = 1e-20;

/// Indices of the `count` largest of each row, the lower index first on ties (topk promises no order of them).
Tensor largest(const Tensor& rows, std::int64_t count) {
  return std::get<1>(at::sort(rows, /*stable=*/true, /*dim=*/-1, /*descending=*/true)).narrow(-1, 0, count);
}

/// [N, E] bool: experts of the topk_group best groups by the sum of their two best scores.
Tensor surviving(const RouterSpec& spec, const Tensor& scores) {
  const std::int64_t size = spec.num_experts / spec.n_group;
  const Tensor groups = scores.unflatten(-1, {spec.n_group, size});
  const Tensor best = std::get<0>(at::sort(groups, /*stable=*/true, /*dim=*/-1, /*descending=*/true));
  const Tensor kept = largest(best.narrow(-1, 0, std::min<std::int64_t>(size, 2)).sum(-1), spec.topk_group);
  const Tensor mask =
      at::zeros({scores.size(0), spec.n_group}, scores.options().dtype(at::kBool)).scatter_(1, kept, true);
  return mask.unsqueeze(-1).expand({-1, -1, size}).flatten(1);
}

/// rows [P, H], sorted by expert -> [P, H].
Tensor expert_by_expert(const Moe& spec, const Scope& scope, const Tensor& rows,
                        const std::vector<std::int64_t>& counts) {
  // One split for all: the gradient of a slice is as large as what it was cut from, and there are as many as experts.
  const std::vector<Tensor> parts = at::split_with_sizes(rows, counts);
  std::vector<Tensor> outputs;
  for (std::size_t e = 0; e < parts.size(); ++e) {
    if (counts[e] == 0) continue;
    outputs.push_back(gated_ffn(scope, fmt::format("experts.{}.", e), spec.hidden_act, parts[e]));
  }
  return at::cat(outputs, 0);
}

Tensor stacked(const Moe& spec, const Scope& scope, const Tensor& rows, const std::vector<std::int64_t>& counts) {
  const auto product = [&](const char* projection, const Tensor& x) {
    const Tensor weight = scope.weights(fmt::format("{}experts.{}.weight", scope.prefix, projection));
    return grouped_linear(x, weight.to(scope.options.compute_dtype), counts);
  };
  const Tensor gate = product("gate_proj", rows), up = product("up_proj", rows);
  return product("down_proj", gated_activation(spec.hidden_act, gate, up));
}

at::ScalarType at_least_float(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

}  // namespace

Tensor Routing::ranked_scores() const {
  return candidates.defined() ? scores.masked_fill(candidates.logical_not(), kNothing) : scores;
}

Routing route(const RouterSpec& spec, const Tensor& logits, const Tensor& bias) {
  KEDGE_CHECK(is_valid(spec) && logits.size(-1) == spec.num_experts && bias.defined() == spec.selection_bias);
  Routing out;
  out.logits = logits.to(at_least_float(logits.scalar_type()));
  Tensor values;  // what the weights are taken from
  double epsilon = 0;
  switch (spec.scoring_func) {
    case ScoringFunc::softmax:
      values = at::softmax(out.logits, -1);
      out.scores = out.logits;
      break;
    case ScoringFunc::sigmoid:
      values = at::sigmoid(out.logits);
      out.scores = bias.defined() ? values + bias.to(values.scalar_type()) : values;
      epsilon = kSumEpsilon;
      break;
  }
  if (spec.topk_group < spec.n_group) out.candidates = surviving(spec, out.scores.detach());
  out.expert_ids = largest(out.ranked_scores().detach(), spec.num_experts_per_tok);
  out.weights = values.gather(-1, out.expert_ids);
  if (spec.norm_topk_prob) out.weights = out.weights / (out.weights.sum(-1, /*keepdim=*/true) + epsilon);
  if (spec.routed_scaling_factor != 1.0f) out.weights = out.weights * spec.routed_scaling_factor;
  return out;
}

Routing route(const Moe& spec, const Scope& scope, const Tensor& x) {
  const auto type = at_least_float(scope.options.dtype);
  const Tensor logits = at::linear(x.to(type), scope.weights(scope.prefix + "gate.weight").to(type));
  const Tensor bias =
      spec.router.selection_bias ? scope.weights(scope.prefix + "gate.e_score_correction_bias") : Tensor();
  Routing out = route(spec.router, logits, bias);
  out.input = x;
  return out;
}

Tensor experts(const Moe& spec, const Scope& scope, const Routing& routing) {
  const auto type = scope.options.compute_dtype;
  const Tensor x = routing.input.to(type);
  const Pairs pairs = sort_pairs(routing.expert_ids, spec.router.num_experts);
  const Tensor rows = gather_tokens(x, pairs);
  const Tensor sorted = scope.options.stacked_experts ? stacked(spec, scope, rows, pairs.counts)
                                                      : expert_by_expert(spec, scope, rows, pairs.counts);
  // [N, 1, k] x [N, k, H]
  const Tensor slots = restore_slots(sorted, pairs);
  Tensor y = at::bmm(routing.weights.to(type).unsqueeze(1), slots).squeeze(1);
  if (spec.shared_expert_intermediate_size > 0) y = y + gated_ffn(scope, "shared_experts.", spec.hidden_act, x);
  return y;
}

}  // namespace kedge::twin
