// y = x / sqrt(mean(x^2) + eps) * weight. Mean: 16 lanes over the row, FMA, fixed tree; then (x * r) * weight with
// r = 1 / sqrt(mean + eps) once per row, IEEE divide and square root.
#pragma once

#include <cstdint>

#include "base/exec.h"

namespace kedge {

/// x, y: rows of `size`, ldx and ldy apart (may alias); weight: [size].
void rmsnorm(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t size,
             const float* weight, float eps, float* y, std::int64_t ldy, Isa isa) noexcept;

}  // namespace kedge
