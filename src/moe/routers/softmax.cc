// softmax over all experts, then the k best. Ranked by logit, which orders as the probability does but keeps apart
// what rounding of the probabilities would tie.
#include <cstring>

#include "base/check.h"
#include "kernels/softmax/softmax.h"
#include "kernels/topk/topk.h"
#include "moe/routers/routers.h"

namespace kedge::routers_detail {

void route_softmax(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
                   std::int32_t* ids, float* weights, float* scores, Isa isa) {
  const std::int64_t experts = spec.num_experts, k = spec.num_experts_per_tok;
  KEDGE_CHECK(bias.empty());
  float probabilities[kMaxExperts];
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* z = logits + t * experts;
    float* ranked = scores + t * experts;
    std::memcpy(ranked, z, static_cast<std::size_t>(experts) * sizeof(float));
    topk(ranked, experts, k, ids + t * k);
    std::memcpy(probabilities, z, static_cast<std::size_t>(experts) * sizeof(float));
    softmax(probabilities, 1, experts, isa);
    select_weights(spec, probabilities, ids + t * k, 0.0f, weights + t * k);
  }
}

}  // namespace kedge::routers_detail
