#include "kernels/product/product.h"

#include <algorithm>

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  ProductKernel kernel;
};

constexpr Row kRows[] = {
    {Isa::avx512, product_tile_avx512},
    {Isa::avx2, product_tile_avx2},
    {Isa::scalar, product_tile_scalar},
};

}  // namespace

ProductKernel product_kernel(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return row.kernel;
  }
  return product_tile_scalar;
}

void product(const ExecContext& ctx, Isa isa, const ProductTile& whole) {
  ArenaScope scope(ctx.scratch);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kProductScratch);
  const ProductKernel kernel = product_kernel(isa);
  const std::int64_t down = (whole.m + kProductTile - 1) / kProductTile;
  const std::int64_t across = (whole.n + kProductTile - 1) / kProductTile;
  ctx.threads.parallel_for(down * across, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t i = task / across * kProductTile, j = task % across * kProductTile;
      ProductTile t = whole;
      t.a += i * whole.a_i;
      t.b += j;
      t.c += i * whole.ldc + j;
      t.m = std::min(kProductTile, whole.m - i);
      t.n = std::min(kProductTile, whole.n - j);
      t.scratch = scratch + thread * kProductScratch;
      kernel(t);
    }
  });
}

}  // namespace kedge
