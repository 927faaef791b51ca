// Routers: logits -> which experts, with which weights. fp32, consistent in both numerics modes; on equal scores the
// lower index wins.
//
//   softmax: p = softmax(z) over all experts, top-k of z; weights = p (divided by their sum if norm_topk_prob).
//   sigmoid (DeepSeek-V3, arXiv 2412.19437): s = sigmoid(z); selection on s + e_score_correction_bias; a group's
//   score is the sum of its two best; only the topk_group best groups compete, the others are excluded with
//   -infinity (transformers fills with 0, which differs when biased scores are negative); weights = s of the selected,
//   divided by (their sum + 1e-20) if norm_topk_prob, times routed_scaling_factor.
#pragma once

#include <cstdint>
#include <span>

#include "base/exec.h"

namespace kedge {

enum class ScoringFunc : std::uint8_t { softmax, sigmoid };

struct RouterSpec {
  ScoringFunc scoring_func = ScoringFunc::softmax;
  std::int64_t num_experts = 0;
  std::int64_t num_experts_per_tok = 0;
  std::int64_t n_group = 1, topk_group = 1;
  bool norm_topk_prob = false;
  float routed_scaling_factor = 1.0f;
  bool selection_bias = false;  ///< has e_score_correction_bias

  bool operator==(const RouterSpec&) const = default;
};

/// Most experts of a layer; routers keep a row of scores on the stack.
inline constexpr std::int64_t kMaxExperts = 4096;

/// A spec that route() accepts: 1 <= k <= E <= kMaxExperts, groups that divide E, k experts in topk_group groups, and
/// no groups or selection bias on a softmax router.
bool is_valid(const RouterSpec& spec) noexcept;

/// A row of the table (routers.cc). Arguments as route().
struct RouterRow {
  const char* name;  ///< as config.json's scoring_func says it
  ScoringFunc scoring_func;
  void (*route)(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
                std::int32_t* ids, float* weights, float* scores, Isa isa);
};
std::span<const RouterRow> routers() noexcept;

/// logits [T, E] -> ids and weights [T, k], slots by descending selection score; scores [T, E] = what was ranked.
/// bias: [E], or empty; sigmoid routers only.
void route(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
           std::int32_t* ids, float* weights, float* scores, Isa isa);

}  // namespace kedge
