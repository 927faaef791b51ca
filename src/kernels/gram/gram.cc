#include "kernels/gram/gram.h"

#include <algorithm>

#include "kernels/product/product.h"

namespace kedge {
namespace {

std::int64_t tiles_along(std::int64_t n, std::int64_t tile) noexcept { return (n + tile - 1) / tile; }

std::int64_t tile_count(const GramJob& job, std::int64_t tile) noexcept {
  if (job.rows <= 0) return 0;
  const std::int64_t rows = tiles_along(job.n, tile);
  return job.y == nullptr ? rows * (rows + 1) / 2 : rows * tiles_along(job.m, tile);
}

struct Place {
  std::int64_t row, col;
};

/// Tile `index` of a job, row by row; in a symmetric job row r has the columns from r on.
Place place(const GramJob& job, std::int64_t index, std::int64_t tile) noexcept {
  if (job.y != nullptr) {
    const std::int64_t across = tiles_along(job.m, tile);
    return {index / across, index % across};
  }
  std::int64_t row = 0;
  for (std::int64_t across = tiles_along(job.n, tile); index >= across; --across, ++row) index -= across;
  return {row, row + index};
}

void run_tile(const GramJob& job, ProductKernel kernel, Place at, std::int64_t tile, float* scratch) noexcept {
  const bool symmetric = job.y == nullptr;
  const std::int64_t i = at.row * tile, j = at.col * tile;
  ProductTile t;
  t.a = job.x + i;
  t.a_k = job.ldx;
  t.b = (symmetric ? job.x : job.y) + j;
  t.b_k = symmetric ? job.ldx : job.ldy;
  t.k = job.rows;
  t.m = std::min(tile, job.n - i);
  t.n = std::min(tile, (symmetric ? job.n : job.m) - j);
  t.c = job.g + i * job.ldg + j;
  t.ldc = job.ldg;
  t.rows = job.row_ids;
  t.weights = job.weights;
  t.upper = symmetric && i == j;
  t.scratch = scratch;
  kernel(t);
}

}  // namespace

void gram(const ExecContext& ctx, Isa isa, std::span<const GramJob> jobs) {
  const auto total_of = [&](std::int64_t tile) {
    std::int64_t total = 0;
    for (const GramJob& job : jobs) total += tile_count(job, tile);
    return total;
  };
  // Large tiles are packed less often; every thread wants several.
  std::int64_t tile = kProductTile;
  while (tile > 64 && total_of(tile) < 4 * ctx.threads.size()) tile /= 2;
  const std::int64_t total = total_of(tile);

  ArenaScope scope(ctx.scratch);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kProductScratch);
  const ProductKernel kernel = product_kernel(isa);
  ctx.threads.parallel_for(total, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t task = begin; task < end; ++task) {
      std::int64_t index = task;
      const GramJob* job = jobs.data();
      for (; index >= tile_count(*job, tile); ++job) index -= tile_count(*job, tile);
      run_tile(*job, kernel, place(*job, index, tile), tile, scratch + thread * kProductScratch);
    }
  });
}

void mirror_upper(const ExecContext& ctx, std::int64_t n, float* g, std::int64_t ldg) {
  constexpr std::int64_t kBlock = 32;  // a block's lines in both orders stay in the first-level cache
  ctx.threads.parallel_for(tiles_along(n, kBlock), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i0 = begin * kBlock; i0 < std::min(n, end * kBlock); i0 += kBlock) {
      for (std::int64_t j0 = 0; j0 <= i0; j0 += kBlock) {
        for (std::int64_t i = i0; i < std::min(n, i0 + kBlock); ++i) {
          for (std::int64_t j = j0; j < std::min(i, j0 + kBlock); ++j) g[i * ldg + j] = g[j * ldg + i];
        }
      }
    }
  });
}

}  // namespace kedge
