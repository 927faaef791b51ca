#include "kernels/rmsnorm/rmsnorm.h"

#include <algorithm>

#include "kernels/vec/table.h"

namespace kedge {
namespace {
constexpr std::int64_t kElementsPerTask = 16384;  ///< below this a task costs less than waking a thread
}  // namespace

void rmsnorm(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t size,
             const float* weight, float eps, float* y, std::int64_t ldy, Isa isa) noexcept {
  const ElementwiseKernels& kernels = elementwise_kernels(isa);
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerTask / std::max<std::int64_t>(size, 1));
  if (rows <= grain) {
    kernels.rmsnorm(x, ldx, rows, size, weight, eps, y, ldy);
    return;
  }
  ctx.threads.parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, int) {
    kernels.rmsnorm(x + begin * ldx, ldx, end - begin, size, weight, eps, y + begin * ldy, ldy);
  });
}

}  // namespace kedge
