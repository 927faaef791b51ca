// DeepSeek-V3's router (arXiv 2412.19437 section 2.1.2): a bias steers the selection only, groups limit it.
#include <limits>

#include "kernels/softmax/softmax.h"
#include "kernels/topk/topk.h"
#include "moe/routers/routers.h"

namespace kedge::routers_detail {
namespace {

// transformers adds this to the sum before dividing.
constexpr float kSumEpsilon = 1e-20f;

/// Excludes all but the topk_group best groups; a group's score is the sum of its two best (of its only one).
void keep_best_groups(const RouterSpec& spec, float* scores) {
  const std::int64_t size = spec.num_experts / spec.n_group;
  float group_scores[kMaxExperts];
  std::int32_t best_groups[kMaxExperts];
  bool kept[kMaxExperts];
  for (std::int64_t g = 0; g < spec.n_group; ++g) {
    std::int32_t best[2];
    const std::int64_t count = size < 2 ? size : 2;
    topk(scores + g * size, size, count, best);
    float sum = scores[g * size + best[0]];
    if (count == 2) sum += scores[g * size + best[1]];
    group_scores[g] = sum;
    kept[g] = false;
  }
  topk(group_scores, spec.n_group, spec.topk_group, best_groups);
  for (std::int64_t i = 0; i < spec.topk_group; ++i) kept[best_groups[i]] = true;
  for (std::int64_t g = 0; g < spec.n_group; ++g) {
    if (kept[g]) continue;
    for (std::int64_t e = g * size; e < (g + 1) * size; ++e) scores[e] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace

void route_sigmoid(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
                   std::int32_t* ids, float* weights, float* scores, Isa isa) {
  const std::int64_t experts = spec.num_experts, k = spec.num_experts_per_tok;
  float unbiased[kMaxExperts];
  for (std::int64_t t = 0; t < tokens; ++t) {
    sigmoid(logits + t * experts, experts, unbiased, isa);
    float* ranked = scores + t * experts;
    for (std::int64_t e = 0; e < experts; ++e) {
      ranked[e] = bias.empty() ? unbiased[e] : unbiased[e] + bias[static_cast<std::size_t>(e)];
    }
    if (spec.topk_group < spec.n_group) keep_best_groups(spec, ranked);
    topk(ranked, experts, k, ids + t * k);
    select_weights(spec, unbiased, ids + t * k, kSumEpsilon, weights + t * k);
  }
}

}  // namespace kedge::routers_detail
