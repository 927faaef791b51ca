// Multiply-adds with weights that one token costs.
#pragma once

#include "model/spec.h"

namespace kedge {

/// Attention projections, dense FFN, router, shared and chosen experts; no embedding, no lm_head, no attention scores.
double products_per_token(const ModelSpec& spec);

}  // namespace kedge
