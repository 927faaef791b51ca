#include "moe/router.h"

#include "base/check.h"
#include "moe/routers/routers.h"

namespace kedge {
namespace {

constexpr RouterRow kRouters[] = {
    {"softmax", ScoringFunc::softmax, routers_detail::route_softmax},
    {"sigmoid", ScoringFunc::sigmoid, routers_detail::route_sigmoid},
};

}  // namespace

std::span<const RouterRow> routers() noexcept { return kRouters; }

bool is_valid(const RouterSpec& spec) noexcept {
  const std::int64_t experts = spec.num_experts, k = spec.num_experts_per_tok;
  if (experts < 1 || experts > kMaxExperts || k < 1 || k > experts) return false;
  if (spec.n_group < 1 || experts % spec.n_group != 0) return false;
  if (spec.topk_group < 1 || spec.topk_group > spec.n_group) return false;
  if (spec.scoring_func == ScoringFunc::softmax && (spec.selection_bias || spec.n_group != 1)) return false;
  return k <= spec.topk_group * (experts / spec.n_group);
}

void route(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
           std::int32_t* ids, float* weights, float* scores, Isa isa) {
  KEDGE_CHECK(is_valid(spec));
  KEDGE_CHECK(bias.empty() || static_cast<std::int64_t>(bias.size()) == spec.num_experts);
  for (const RouterRow& row : kRouters) {
    if (row.scoring_func == spec.scoring_func) {
      row.route(spec, logits, tokens, bias, ids, weights, scores, isa);
      return;
    }
  }
  KEDGE_CHECK(!"a scoring function without a row");
}

namespace routers_detail {

void select_weights(const RouterSpec& spec, const float* values, const std::int32_t* ids, float epsilon,
                    float* weights) {
  const std::int64_t k = spec.num_experts_per_tok;
  float sum = 0.0f;
  for (std::int64_t s = 0; s < k; ++s) {
    weights[s] = values[ids[s]];
    sum += weights[s];
  }
  if (spec.norm_topk_prob) {
    const float denominator = sum + epsilon;
    for (std::int64_t s = 0; s < k; ++s) weights[s] /= denominator;
  }
  if (spec.routed_scaling_factor != 1.0f) {
    for (std::int64_t s = 0; s < k; ++s) weights[s] *= spec.routed_scaling_factor;
  }
}

}  // namespace routers_detail
}  // namespace kedge
