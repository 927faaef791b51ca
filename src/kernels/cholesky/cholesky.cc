#include "kernels/cholesky/cholesky.h"

#include <algorithm>

#include "kernels/cholesky/block.h"
#include "kernels/product/product.h"

namespace kedge {
namespace {

constexpr std::int64_t kBlock = kCholeskyBlock;
constexpr std::int64_t kChunk = 128;  ///< columns of right-hand sides per task

/// tri[i, k] = s[begin + k, begin + i]: the coefficients of a forward solve, close together.
void transpose_block(const float* s, std::int64_t lds, std::int64_t begin, std::int64_t size, float* tri) noexcept {
  for (std::int64_t k = 0; k < size; ++k) {
    const float* row = s + (begin + k) * lds + begin;
    for (std::int64_t i = k; i < size; ++i) tri[i * kBlock + k] = row[i];
  }
}

void solve_columns(const CholeskyKernels& kernels, const float* c, std::int64_t ldc, std::int64_t size, bool backward,
                   float* x, std::int64_t ldx, std::int64_t columns) noexcept {
  for (std::int64_t j = 0; j < columns; j += kCholeskyColumns) {
    kernels.solve(c, ldc, size, backward, x + j, ldx, std::min(kCholeskyColumns, columns - j));
  }
}

/// One task's part of a solve: x [n, columns], its triangular matrix and its scratch.
struct Solve {
  const CholeskyKernels& kernels;
  ProductKernel product;
  const float* s;
  std::int64_t lds;
  float* x;
  std::int64_t ldx, columns;
  float* scratch;  ///< [kProductScratch + kBlock^2]

  /// s^T x = b, rows [0, n).
  void forward(std::int64_t n) const noexcept {
    float* tri = scratch + kProductScratch;
    for (std::int64_t begin = 0; begin < n; begin += kBlock) {
      const std::int64_t size = std::min(kBlock, n - begin);
      subtract(s + begin, lds, 1, begin, 0, begin, size);
      transpose_block(s, lds, begin, size, tri);
      solve_columns(kernels, tri, kBlock, size, false, x + begin * ldx, ldx, columns);
    }
  }
  /// s x = b, rows [0, n); those from n on are zero.
  void backward(std::int64_t n) const noexcept {
    for (std::int64_t begin = (n - 1) / kBlock * kBlock; begin >= 0; begin -= kBlock) {
      const std::int64_t size = std::min(kBlock, n - begin), after = begin + size;
      subtract(s + begin * lds + after, 1, lds, n - after, after, begin, size);
      solve_columns(kernels, s + begin * lds + begin, lds, size, true, x + begin * ldx, ldx, columns);
    }
  }
  /// Rows [to, to + size) of x less a^T (rows [from, from + k) of x).
  void subtract(const float* a, std::int64_t a_k, std::int64_t a_i, std::int64_t k, std::int64_t from, std::int64_t to,
                std::int64_t size) const noexcept {
    ProductTile t;
    t.a = a;
    t.a_k = a_k;
    t.a_i = a_i;
    t.b = x + from * ldx;
    t.b_k = ldx;
    t.k = k;
    t.m = size;
    t.n = columns;
    t.c = x + to * ldx;
    t.ldc = ldx;
    t.subtract = true;
    t.scratch = scratch;
    product(t);
  }
};

constexpr std::int64_t kSolveScratch = kProductScratch + kBlock * kBlock;

/// The trailing matrix, upper triangle, from row `begin` on: less panel^T panel, panel = rows [begin - size, begin).
void update_trailing(const ExecContext& ctx, ProductKernel product, std::int64_t n, float* a, std::int64_t lda,
                     std::int64_t begin, std::int64_t size, float* scratch) {
  const auto tiles_of = [&](std::int64_t tile) {
    const std::int64_t across = (n - begin + tile - 1) / tile;
    return across * (across + 1) / 2;
  };
  std::int64_t tile = kProductTile;
  while (tile > 64 && tiles_of(tile) < 4 * ctx.threads.size()) tile /= 2;
  ctx.threads.parallel_for(tiles_of(tile), 1, [&](std::int64_t first, std::int64_t last, int thread) {
    for (std::int64_t task = first; task < last; ++task) {
      // Column of tiles c has the c + 1 tiles on and above the diagonal.
      std::int64_t row = task, col = 0;
      while (row > col) row -= ++col;
      const std::int64_t i = begin + row * tile, j = begin + col * tile;
      ProductTile t;
      t.a = a + (begin - size) * lda + i;
      t.a_k = lda;
      t.b = a + (begin - size) * lda + j;
      t.b_k = lda;
      t.k = size;
      t.m = std::min(tile, n - i);
      t.n = std::min(tile, n - j);
      t.c = a + i * lda + j;
      t.ldc = lda;
      t.subtract = true;
      t.upper = row == col;
      t.scratch = scratch + thread * kProductScratch;
      product(t);
    }
  });
}

/// to[i, j] = from[n-1-j, n-1-i] for j >= i: of a symmetric matrix J from J, of a triangular one J from^T J.
void anti_transpose_upper(const ExecContext& ctx, std::int64_t n, const float* from, std::int64_t ldf, float* to,
                          std::int64_t ldt) {
  constexpr std::int64_t kSquare = 32;
  ctx.threads.parallel_for(n, kSquare, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t j0 = begin; j0 < n; j0 += kSquare) {
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t j = std::max(i, j0); j < std::min(n, j0 + kSquare); ++j) {
          to[i * ldt + j] = from[(n - 1 - j) * ldf + n - 1 - i];
        }
      }
    }
  });
}

void clear_lower(const ExecContext& ctx, std::int64_t n, float* a, std::int64_t lda) {
  ctx.threads.parallel_for(n, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) std::fill_n(a + i * lda, i, 0.0f);
  });
}

}  // namespace

bool cholesky(const ExecContext& ctx, Isa isa, std::int64_t n, float* a, std::int64_t lda) {
  const CholeskyKernels& kernels = cholesky_kernels(isa);
  const ProductKernel product = product_kernel(isa);
  ArenaScope scope(ctx.scratch);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kProductScratch);
  float* tri = ctx.scratch.take<float>(kBlock * kBlock);
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, n - begin), after = begin + size;
    float* diagonal = a + begin * lda + begin;
    if (!kernels.factor(diagonal, lda, size)) return false;
    if (after == n) break;
    transpose_block(a, lda, begin, size, tri);
    ctx.threads.parallel_for(n - after, kCholeskyColumns, [&](std::int64_t first, std::int64_t last, int) {
      solve_columns(kernels, tri, kBlock, size, false, a + begin * lda + after + first, lda, last - first);
    });
    update_trailing(ctx, product, n, a, lda, after, size, scratch);
  }
  clear_lower(ctx, n, a, lda);
  return true;
}

void cholesky_solve(const ExecContext& ctx, Isa isa, std::int64_t n, const float* s, std::int64_t lds, float* b,
                    std::int64_t ldb, std::int64_t m) {
  ArenaScope scope(ctx.scratch);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kSolveScratch);
  ctx.threads.parallel_for(m, kChunk, [&](std::int64_t begin, std::int64_t end, int thread) {
    const Solve solve{cholesky_kernels(isa),           product_kernel(isa), s, lds, b + begin, ldb, end - begin,
                      scratch + thread * kSolveScratch};
    solve.forward(n);
    solve.backward(n);
  });
}

void triangular_inverse(const ExecContext& ctx, Isa isa, std::int64_t n, const float* s, std::int64_t lds, float* t,
                        std::int64_t ldt) {
  ArenaScope scope(ctx.scratch);
  float* scratch = ctx.scratch.take<float>(ctx.threads.size() * kSolveScratch);
  const std::int64_t chunks = (n + kChunk - 1) / kChunk;
  // Column j of the inverse ends at row j. The last columns are the longest and go first.
  ctx.threads.parallel_for(chunks, 1, [&](std::int64_t first, std::int64_t last, int thread) {
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t begin = (chunks - 1 - task) * kChunk, end = std::min(n, begin + kChunk);
      for (std::int64_t i = 0; i < n; ++i) std::fill(t + i * ldt + begin, t + i * ldt + end, 0.0f);
      for (std::int64_t i = begin; i < end; ++i) t[i * ldt + i] = 1.0f;
      const Solve solve{cholesky_kernels(isa),           product_kernel(isa), s, lds, t + begin, ldt, end - begin,
                        scratch + thread * kSolveScratch};
      solve.backward(end);
    }
  });
}

bool gptq_factor(const ExecContext& ctx, Isa isa, std::int64_t n, float* h, std::int64_t ldh) {
  ArenaScope scope(ctx.scratch);
  float* s = ctx.scratch.take<float>(n * n);
  anti_transpose_upper(ctx, n, h, ldh, s, n);
  if (!cholesky(ctx, isa, n, s, n)) return false;
  triangular_inverse(ctx, isa, n, s, n, h, ldh);
  ctx.threads.parallel_for(n, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) std::copy_n(h + i * ldh, n, s + i * n);
  });
  anti_transpose_upper(ctx, n, s, n, h, ldh);
  return true;
}

}  // namespace kedge
