#include "kernels/swiglu/activation.h"

#include <algorithm>

#include "kernels/swiglu/swiglu.h"

namespace kedge {

void activation(const ExecContext& ctx, FfnActivation act, const float* x, std::int64_t ldx, std::int64_t rows,
                std::int64_t size, float* h, std::int64_t ldh, Isa isa) {
  ArenaScope scope(ctx.scratch);
  float* ones = ctx.scratch.take<float>(size);
  std::fill(ones, ones + size, 1.0f);
  gated_activation(ctx, act, x, ldx, ones, 0, rows, size, h, ldh, isa);
}

}  // namespace kedge
