#include "kernels/gemm/jobs.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/layout.h"

namespace kedge {
namespace {

// Below this many packed elements a second thread costs more than it saves.
constexpr std::int64_t kParallelPack = 32 * 1024;
// Decoded panels of an anchor that a task holds: half of a 1 MiB L2, but two at least.
constexpr std::int64_t kAnchorBytes = 512 * 1024;
constexpr std::size_t kAnchorUsers = 3;  // two experts that read it as stored take 0.9 of the time
constexpr std::int64_t kMaxAnchorPanels = 4;  // as many as a decode row computes together

std::size_t element_bytes(RowLayout layout) noexcept {
  return layout == RowLayout::f32 ? 4 : layout == RowLayout::s16 ? 2 : 1;
}

/// Whether the jobs' weights are deltas on one anchor that a table row decodes, and enough for one decoding to pay.
bool share_anchor(std::span<const GemmJob> jobs) noexcept {
  if (jobs.size() < kAnchorUsers || jobs[0].w.anchor == nullptr || jobs[0].row->dequantize == nullptr) return false;
  return std::all_of(jobs.begin() + 1, jobs.end(), [&](const GemmJob& job) {
    return job.w.anchor == jobs[0].w.anchor && job.row->dequantize == jobs[0].row->dequantize;
  });
}

void run_blocks(const GemmJob& job, const WeightView& w, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t blocks = block_count(job.in.rows);
  for (std::int64_t b = 0; b < blocks; ++b) {
    run_block(*job.row, w, job.in, b, begin, end, {job.y + block_begin(job.in.rows, blocks, b) * job.ldy, job.ldy, 0});
  }
}

/// A task is some panels of all jobs: the anchor's are decoded once and then read as fp32, which gives the same bits.
void run_on_shared_anchor(const ExecContext& ctx, std::span<const GemmJob> jobs) {
  const WeightView& anchor = *jobs[0].w.anchor;
  const std::int64_t size = padded(anchor.k) * kPanel, panels = panel_count(anchor.n);
  const std::int64_t step = std::clamp(kAnchorBytes / (size * static_cast<std::int64_t>(sizeof(float))) / 2 * 2,
                                       std::int64_t{2}, kMaxAnchorPanels);
  float* decoded = ctx.scratch.take<float>(ctx.threads.size() * step * size);
  ctx.threads.parallel_for((panels + step - 1) / step, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i * step, last = std::min(panels, first + step);
      float* own = decoded + thread * step * size;
      jobs[0].row->dequantize(anchor, first, last, own);
      WeightView shared = anchor;
      shared.format = WeightFormat::f32;
      shared.codes = reinterpret_cast<const std::uint8_t*>(own);
      shared.first_panel = first;
      shared.panel_bytes = size * static_cast<std::int64_t>(sizeof(float));
      for (const GemmJob& job : jobs) {
        WeightView w = job.w;
        w.anchor = &shared;
        run_blocks(job, w, first, last);
      }
    }
  });
}

}  // namespace

std::int64_t block_count(std::int64_t rows) noexcept { return (rows + kRowBlock - 1) / kRowBlock; }

std::int64_t block_begin(std::int64_t rows, std::int64_t blocks, std::int64_t b) noexcept { return rows * b / blocks; }

std::int64_t panels_per_task(const GemmRow& row, std::int64_t panels, std::int64_t blocks, int threads) noexcept {
  const std::int64_t wanted = panels * blocks / (std::int64_t{threads} * 8);
  const std::int64_t tiles = std::clamp<std::int64_t>(wanted / row.panel_tile, 1, 4);
  return tiles * row.panel_tile;
}

PackedRows plan_rows(Arena& scratch, const GemmRow& row, const WeightView& w, const RowSource& source) {
  PackedRows p{};
  p.row = &row;
  p.rows = source.rows;
  p.k = w.k;
  p.k_padded = padded(w.k);
  p.x = source.x;
  p.ldx = source.ldx;
  p.gather = source.gather;
  if (row.layout != RowLayout::f32) {
    p.group = w.group;
    p.groups = w.groups;
    p.input_scale = w.input_scale;
    p.scale = scratch.take<float>(p.rows * p.groups);
    p.sum = scratch.take<std::int32_t>(p.rows * p.groups);
  }
  p.data = scratch.take<std::byte>(p.rows * p.k_padded * static_cast<std::int64_t>(element_bytes(row.layout)));
  return p;
}

bool same_rows(const PackedRows& p, const GemmRow& row, const WeightView& w) noexcept {
  return p.row->pack == row.pack && p.row->row_tile == row.row_tile && p.k == w.k &&
         (row.layout == RowLayout::f32 || (p.group == w.group && p.input_scale == w.input_scale));
}

std::int64_t total_tiles(const PackedRows& p) noexcept {
  const std::int64_t blocks = block_count(p.rows);
  std::int64_t tiles = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    tiles += tile_count(block_begin(p.rows, blocks, b + 1) - block_begin(p.rows, blocks, b), p.row->row_tile);
  }
  return tiles;
}

void pack_tiles(const PackedRows& p, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t blocks = block_count(p.rows);
  const auto bytes = static_cast<std::int64_t>(element_bytes(p.row->layout));
  std::int64_t tile = 0;
  for (std::int64_t b = 0; b < blocks && tile < end; ++b) {
    const std::int64_t first = block_begin(p.rows, blocks, b);
    const std::int64_t rows = block_begin(p.rows, blocks, b + 1) - first;
    const std::int64_t tiles = tile_count(rows, p.row->row_tile);
    for (std::int64_t i = 0; i < tiles && tile < end; ++i, ++tile) {
      if (tile < begin) {
        continue;
      }
      const std::int64_t r = first + tile_begin(rows, tiles, i);
      PackTask t{};
      t.x = p.gather != nullptr ? p.x : p.x + r * p.ldx;
      t.ldx = p.ldx;
      t.gather = p.gather != nullptr ? p.gather + r : nullptr;
      t.rows = first + tile_begin(rows, tiles, i + 1) - r;
      t.k = p.k;
      t.k_padded = p.k_padded;
      t.group = p.group;
      t.groups = p.groups;
      t.input_scale = p.input_scale;
      t.out = static_cast<std::byte*>(p.data) + r * p.k_padded * bytes;
      t.scale = p.scale + r * p.groups;
      t.sum = p.sum + r * p.groups;
      p.row->pack(t);
    }
  }
}

void run_block(const GemmRow& row, const WeightView& w, const PackedRows& in, std::int64_t block, std::int64_t begin,
               std::int64_t end, const BlockOutput& out) noexcept {
  const std::int64_t blocks = block_count(in.rows);
  const std::int64_t first = block_begin(in.rows, blocks, block);
  GemmTask t{};
  t.w = w;
  t.x = static_cast<const std::byte*>(in.data) +
        first * in.k_padded * static_cast<std::int64_t>(element_bytes(row.layout));
  t.scale = in.scale + first * in.groups;
  t.sum = in.sum + first * in.groups;
  t.rows = block_begin(in.rows, blocks, block + 1) - first;
  t.row_tile = row.row_tile;
  t.k_padded = in.k_padded;
  t.panel_begin = begin;
  t.panel_end = end;
  t.y = out.y;
  t.ldy = out.ldy;
  t.y_column = out.y_column;
  row.run(t);
}

void pack_all(const ExecContext& ctx, std::span<const PackedRows> packed) {
  ArenaScope scope(ctx.scratch);
  auto* first = ctx.scratch.take<std::int64_t>(static_cast<std::int64_t>(packed.size()) + 1);
  first[0] = 0;
  std::int64_t elements = 0;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    first[i + 1] = first[i] + total_tiles(packed[i]);
    elements += packed[i].rows * packed[i].k;
  }
  const std::span<const std::int64_t> starts(first, packed.size() + 1);
  const std::int64_t tiles = starts.back();
  const auto work = [&](std::int64_t begin, std::int64_t end, int) {
    for_parts(starts, begin, end,
              [&](std::size_t i, std::int64_t from, std::int64_t to) { pack_tiles(packed[i], from, to); });
  };
  if (elements < kParallelPack) {
    work(0, tiles, 0);
  } else {
    ctx.threads.parallel_for(tiles, std::max<std::int64_t>(1, tiles / (ctx.threads.size() * 8)), work);
  }
}

void run_all(const ExecContext& ctx, std::span<const GemmJob> jobs) {
  ArenaScope scope(ctx.scratch);
  if (share_anchor(jobs)) return run_on_shared_anchor(ctx, jobs);
  const auto count = static_cast<std::int64_t>(jobs.size());
  auto* first = ctx.scratch.take<std::int64_t>(count + 1);
  auto* step = ctx.scratch.take<std::int64_t>(count);
  std::int64_t all_panels = 0;
  for (const GemmJob& job : jobs) {
    all_panels += panel_count(job.w.n);
  }
  first[0] = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    const GemmJob& job = jobs[static_cast<std::size_t>(j)];
    const std::int64_t panels = panel_count(job.w.n), blocks = block_count(job.in.rows);
    step[j] = panels_per_task(*job.row, all_panels, blocks, ctx.threads.size());
    first[j + 1] = first[j] + blocks * ((panels + step[j] - 1) / step[j]);
  }
  const std::span<const std::int64_t> starts(first, jobs.size() + 1);
  ctx.threads.parallel_for(starts.back(), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for_parts(starts, begin, end, [&](std::size_t j, std::int64_t from, std::int64_t to) {
      const GemmJob& job = jobs[j];
      const std::int64_t panels = panel_count(job.w.n);
      const std::int64_t per_block = (panels + step[j] - 1) / step[j], blocks = block_count(job.in.rows);
      for (std::int64_t i = from; i < to; ++i) {
        const std::int64_t panel = i % per_block * step[j], block = i / per_block;
        run_block(*job.row, job.w, job.in, block, panel, std::min(panels, panel + step[j]),
                  {job.y + block_begin(job.in.rows, blocks, block) * job.ldy, job.ldy, 0});
      }
    });
  });
}

}  // namespace kedge
