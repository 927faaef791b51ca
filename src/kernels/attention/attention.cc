#include "kernels/attention/attention.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/attention/row.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  AttentionKernel kernel;
};

constexpr Row kRows[] = {
    {Isa::avx512, attention_tile_avx512},
    {Isa::avx2, attention_tile_avx2},
    {Isa::scalar, attention_tile_scalar},
};

AttentionKernel kernel_for(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return row.kernel;
  }
  return attention_tile_scalar;
}

/// Multiply-adds below which one thread is done before the others are awake (a few microseconds).
constexpr std::int64_t kSmallWork = 1 << 18;

/// More rows per tile reuse keys better; scores of a tile should stay near the second-level cache.
std::int64_t tile_rows(std::int64_t rows, std::int64_t columns, std::int64_t heads, int threads) noexcept {
  std::int64_t tile = columns <= 8192 ? kAttentionTileRows : kAttentionTileRows / 2;
  // Enough tasks for all threads, as long as a tile keeps 4 rows.
  while (tile > 4 && heads * ((rows + tile - 1) / tile) < 2 * threads) tile /= 2;
  return std::min(tile, rows);
}

}  // namespace

void attention(const ExecContext& ctx, const AttentionDesc& desc, const float* q, std::int64_t tokens,
               std::int64_t start, const float* k, const float* v, std::int64_t capacity, float* out, Isa isa) {
  if (tokens <= 0) return;
  KEDGE_CHECK(desc.causal || desc.sliding_window == 0);  // what both ways see has no window
  const AttentionKernel kernel = kernel_for(isa);
  const std::int64_t heads = desc.num_key_value_heads, group = desc.num_heads / heads;
  const std::int64_t rows = tokens * group, length = start + tokens;
  // Columns of a tile: what its tokens see, rounded outwards to whole blocks of 16.
  const auto columns_for = [&](std::int64_t tile) {
    const std::int64_t tile_tokens = (tile + group - 1) / group + 1;
    const std::int64_t seen = desc.sliding_window > 0 ? std::min(length, desc.sliding_window + tile_tokens) : length;
    return (seen + 15) / 16 * 16 + 32;
  };
  const std::int64_t tile = tile_rows(rows, columns_for(kAttentionTileRows), heads, ctx.threads.size());
  const std::int64_t columns = columns_for(tile), tiles = (rows + tile - 1) / tile;

  ArenaScope scope(ctx.scratch);
  float* scores = ctx.scratch.take<float>(ctx.threads.size() * tile * columns);

  const auto run = [&](std::int64_t task_begin, std::int64_t task_end, int thread) {
    for (std::int64_t task = task_begin; task < task_end; ++task) {
      // Head by head, so that its keys and values stay in the cache; the last tokens see most and go first, so that
      // no thread ends with a long tile.
      const std::int64_t head = task / tiles, index = tiles - 1 - task % tiles;
      AttentionTile t;
      t.q = q + head * group * desc.head_dim;
      t.q_stride = desc.num_heads * desc.head_dim;
      t.k = k + head * capacity * desc.head_dim;
      t.v = v + head * capacity * desc.value_dim;
      t.out = out + head * group * desc.value_dim;
      t.out_stride = desc.num_heads * desc.value_dim;
      t.head_dim = desc.head_dim;
      t.value_dim = desc.value_dim;
      t.group = group;
      t.start = start;
      t.window = desc.sliding_window;
      t.visible = desc.causal ? 0 : length;
      t.scale = desc.scale;
      t.begin = index * tile;
      t.end = std::min(rows, t.begin + tile);
      t.scores = scores + thread * tile * columns;
      t.score_stride = columns;
      const std::int64_t first_position = start + t.begin / group;
      t.base =
          desc.sliding_window > 0 ? std::max<std::int64_t>(0, first_position - desc.sliding_window + 1) / 16 * 16 : 0;
      kernel(t);
    }
  };
  if (heads * rows * columns * (desc.head_dim + desc.value_dim) <= kSmallWork) {
    run(0, heads * tiles, 0);
  } else {
    ctx.threads.parallel_for(heads * tiles, 1, run);
  }
}

}  // namespace kedge
