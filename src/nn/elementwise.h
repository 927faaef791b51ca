// The few elementwise steps between kernels. Each element on its own, so any split gives the same bits.
#pragma once

#include <cstdint>

#include "base/exec.h"

namespace kedge {

/// y[r, :] += bias, rows ldy apart.
void add_bias(const ExecContext& ctx, float* y, std::int64_t ldy, std::int64_t rows, std::int64_t size,
              const float* bias);
/// y[r, :] = max(y[r, :] + bias, 0); NaN stays.
void add_bias_relu(const ExecContext& ctx, float* y, std::int64_t ldy, std::int64_t rows, std::int64_t size,
                   const float* bias);
/// h += scale * x, count elements; the product is rounded first (scale 1: a plain sum).
void add_scaled(const ExecContext& ctx, float* h, const float* x, std::int64_t count, float scale);
/// x = min(max(x, -limit), limit).
void clamp(const ExecContext& ctx, float* x, std::int64_t count, float limit);

}  // namespace kedge
