#include "kernels/swiglu/swiglu.h"

#include <algorithm>

#include "kernels/vec/table.h"

namespace kedge {
namespace {
constexpr std::int64_t kElementsPerTask = 8192;  ///< below this a task costs less than waking a thread
}  // namespace

void gated_activation(const ExecContext& ctx, FfnActivation activation, const float* gate, std::int64_t ldg,
                      const float* up, std::int64_t ldu, std::int64_t rows, std::int64_t size, float* h,
                      std::int64_t ldh, Isa isa) noexcept {
  const auto kernel = elementwise_kernels(isa).gated[static_cast<int>(activation)];
  const auto run = [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) kernel(gate + r * ldg, up + r * ldu, size, h + r * ldh);
  };
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerTask / std::max<std::int64_t>(size, 1));
  if (rows <= grain) {
    run(0, rows, 0);
  } else {
    ctx.threads.parallel_for(rows, grain, run);
  }
}

}  // namespace kedge
