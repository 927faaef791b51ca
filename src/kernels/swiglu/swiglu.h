// h = act(gate) * up, elementwise; exp of kernels/vec.
//   silu       x / (1 + exp(-x))
//   gelu       x * Phi(x), Phi the normal distribution (absolute error below 1e-6 |x|)
//   gelu_tanh  x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), which is x / 2 (1 + tanh(...))
//   relu2      max(x, 0)^2
#pragma once

#include <cstdint>

#include "base/exec.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kedge {

/// gate, up, h: [rows, size], rows ld* apart; h may alias gate.
void gated_activation(const ExecContext& ctx, FfnActivation activation, const float* gate, std::int64_t ldg,
                      const float* up, std::int64_t ldu, std::int64_t rows, std::int64_t size, float* h,
                      std::int64_t ldh, Isa isa) noexcept;

}  // namespace kedge
