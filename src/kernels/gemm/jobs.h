// One weight times some rows, split into tasks for threads. gemm, grouped_gemm and moe_ffn are lists of jobs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/exec.h"
#include "kernels/gemm/table.h"

namespace kedge {

/// Rows of x packed for a row of the table.
struct PackedRows {
  const GemmRow* row;  ///< gives layout, tile and pack function
  std::int64_t rows;
  std::int64_t k, k_padded;
  std::int64_t group, groups;
  float input_scale;
  const float* x;
  std::int64_t ldx;
  const std::int32_t* gather;  ///< may be null
  void* data;
  float* scale;
  std::int32_t* sum;
};

struct GemmJob {
  const GemmRow* row;
  WeightView w;
  PackedRows in;
  float* y;
  std::int64_t ldy;
};

struct RowSource {
  const float* x;
  std::int64_t ldx;
  const std::int32_t* gather;
  std::int64_t rows;
};

/// Takes scratch for the packed rows; pack_rows fills it.
PackedRows plan_rows(Arena& scratch, const GemmRow& row, const WeightView& w, const RowSource& source);
/// Whether rows packed for one weight also serve another.
bool same_rows(const PackedRows& packed, const GemmRow& row, const WeightView& w) noexcept;

/// Row blocks of at most kRowBlock rows, and the first row of block b.
std::int64_t block_count(std::int64_t rows) noexcept;
std::int64_t block_begin(std::int64_t rows, std::int64_t blocks, std::int64_t b) noexcept;
/// Tiles of all row blocks.
std::int64_t total_tiles(const PackedRows& p) noexcept;
void pack_tiles(const PackedRows& p, std::int64_t begin, std::int64_t end) noexcept;

/// Computes row block `block` times panels [begin, end). y: the block's first row, output y_column.
struct BlockOutput {
  float* y;
  std::int64_t ldy;
  std::int64_t y_column;
};
void run_block(const GemmRow& row, const WeightView& w, const PackedRows& in, std::int64_t block, std::int64_t begin,
               std::int64_t end, const BlockOutput& out) noexcept;

/// Calls fn(item, begin, end) for the part of [begin, end) that falls into each item's own range.
/// first: [items + 1] running totals from 0.
template <class F>
void for_parts(std::span<const std::int64_t> first, std::int64_t begin, std::int64_t end, F&& fn) {
  auto item = static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin()) - 1;
  while (begin < end) {
    const std::int64_t stop = std::min(end, first[item + 1]);
    if (begin < stop) {
      fn(item, begin - first[item], stop - first[item]);
      begin = stop;
    }
    ++item;
  }
}

/// Packs the rows of all jobs, in parallel where that pays.
void pack_all(const ExecContext& ctx, std::span<const PackedRows> packed);
/// Runs all jobs; their rows are packed.
void run_all(const ExecContext& ctx, std::span<const GemmJob> jobs);

/// Panels per task: a multiple of the row's panel_tile, small enough to balance `threads`.
std::int64_t panels_per_task(const GemmRow& row, std::int64_t panels, std::int64_t blocks, int threads) noexcept;

}  // namespace kedge
