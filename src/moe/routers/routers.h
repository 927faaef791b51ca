// The routers themselves; routers.cc lists them.
#pragma once

#include <cstdint>
#include <span>

#include "moe/router.h"

namespace kedge::routers_detail {

void route_softmax(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
                   std::int32_t* ids, float* weights, float* scores, Isa isa);
void route_sigmoid(const RouterSpec& spec, const float* logits, std::int64_t tokens, std::span<const float> bias,
                   std::int32_t* ids, float* weights, float* scores, Isa isa);

/// The last steps that routers share: weights[s] = values[ids[s]], over (their sum + epsilon) if asked, times scale.
/// The sum runs over the slots in order.
void select_weights(const RouterSpec& spec, const float* values, const std::int32_t* ids, float epsilon,
                    float* weights);

}  // namespace kedge::routers_detail
