// h = act(x), elementwise: gated_activation (swiglu.h) with up = 1, a product that rounds nothing.
#pragma once

#include <cstdint>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

/// x, h: [rows, size], rows ld* apart; h may alias x.
void activation(const ExecContext& ctx, FfnActivation act, const float* x, std::int64_t ldx, std::int64_t rows,
                std::int64_t size, float* h, std::int64_t ldh, Isa isa);

}  // namespace kedge
