// Two passes over the used experts, tasks are tiles of outputs (never whole experts, so that threads balance):
//   1. gate and up for a chunk of intermediate columns of a row block, then the activation: x is packed once and
//      gate and up values never leave the caches;
//   2. down. With few pairs a task computes its columns for all experts and combines them; with many, products go
//      to memory and tokens are combined afterwards.
#include <algorithm>

#include "kernels/gemm/jobs.h"
#include "kernels/gemm/layout.h"
#include "kernels/moe_ffn/combine.h"
#include "kernels/moe_ffn/rows.h"
#include "kernels/swiglu/swiglu.h"

namespace kedge {
namespace {

// Pairs whose products for one chunk of columns stay in L2 while the experts pass by.
constexpr std::int64_t kCombineInTask = 256;
constexpr std::int64_t kDownPanels = 4;

struct ExpertJob {
  const GemmRow *gate, *up, *down;
  WeightView gate_w, up_w, down_w;
  PackedRows gate_x, up_x, h;
  std::int64_t begin, rows;  // among the sorted pairs
  std::int64_t step;         // intermediate panels per task
};

const GemmRow& row_for(const PackedWeight& w, std::int64_t rows) { return select_gemm({w.desc_, w.options_, rows}); }

std::span<ExpertJob> plan_jobs(const ExecContext& ctx, const MoeFfnCall& call, float* h) {
  const ExpertFfnDesc& desc = *call.desc;
  const TokenPermutation& perm = *call.permutation;
  auto* jobs = ctx.scratch.take<ExpertJob>(desc.num_experts);
  std::size_t used = 0;
  std::int64_t active = 0;
  for (std::int64_t e = 0; e < desc.num_experts; ++e) {
    active += perm.offsets[static_cast<std::size_t>(e) + 1] > perm.offsets[static_cast<std::size_t>(e)] ? 1 : 0;
  }
  for (std::int64_t e = 0; e < desc.num_experts; ++e) {
    const std::int64_t begin = perm.offsets[static_cast<std::size_t>(e)];
    const std::int64_t rows = perm.offsets[static_cast<std::size_t>(e) + 1] - begin;
    if (rows == 0) {
      continue;
    }
    const ExpertWeights& weights = (*call.experts)[e];
    ExpertJob& job = jobs[used++];
    job = {};
    job.begin = begin;
    job.rows = rows;
    job.gate = &row_for(weights.gate, rows);
    job.up = &row_for(weights.up, rows);
    job.down = &row_for(weights.down, rows);
    job.gate_w = weight_view(weights.gate);
    job.up_w = weight_view(weights.up);
    job.down_w = weight_view(weights.down);
    const RowSource x{call.x, desc.hidden_size, perm.token.data() + begin, rows};
    job.gate_x = plan_rows(ctx.scratch, *job.gate, job.gate_w, x);
    job.up_x = same_rows(job.gate_x, *job.up, job.up_w) ? job.gate_x
                                                        : plan_rows(ctx.scratch, *job.up, job.up_w, x);
    job.h = plan_rows(ctx.scratch, *job.down, job.down_w,
                      {h + begin * desc.intermediate_size, desc.intermediate_size, nullptr, rows});
    const std::int64_t panels = panel_count(desc.intermediate_size) * active;
    const std::int64_t tile = std::max(job.gate->panel_tile, job.up->panel_tile);
    job.step = std::max(tile, panels_per_task(*job.gate, panels, block_count(rows), ctx.threads.size()) / tile * tile);
  }
  return {jobs, used};
}

void pack_inputs(const ExecContext& ctx, std::span<const ExpertJob> jobs) {
  ArenaScope scope(ctx.scratch);
  auto* packed = ctx.scratch.take<PackedRows>(static_cast<std::int64_t>(jobs.size()) * 2);
  std::size_t count = 0;
  for (const ExpertJob& job : jobs) {
    packed[count++] = job.gate_x;
    if (job.up_x.data != job.gate_x.data) {
      packed[count++] = job.up_x;
    }
  }
  pack_all(ctx, {packed, count});
}

void pack_hidden(const ExecContext& ctx, std::span<const ExpertJob> jobs) {
  ArenaScope scope(ctx.scratch);
  auto* packed = ctx.scratch.take<PackedRows>(static_cast<std::int64_t>(jobs.size()));
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    packed[j] = jobs[j].h;
  }
  pack_all(ctx, {packed, jobs.size()});
}

// h[pairs, I] = act(gate) * up
void gate_up(const ExecContext& ctx, const MoeFfnCall& call, std::span<const ExpertJob> jobs, float* h) {
  ArenaScope scope(ctx.scratch);
  const std::int64_t size = call.desc->intermediate_size, panels = panel_count(size);
  auto* first = ctx.scratch.take<std::int64_t>(static_cast<std::int64_t>(jobs.size()) + 1);
  first[0] = 0;
  std::int64_t buffer = 0;
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    first[j + 1] = first[j] + block_count(jobs[j].rows) * ((panels + jobs[j].step - 1) / jobs[j].step);
    buffer = std::max(buffer, std::min(kRowBlock, jobs[j].rows) * jobs[j].step * kPanel);
  }
  auto* buffers = ctx.scratch.take<float>(buffer * 2 * ctx.threads.size());
  const Isa isa = experts_isa(*call.experts);
  const std::span<const std::int64_t> starts(first, jobs.size() + 1);
  ctx.threads.parallel_for(starts.back(), 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* gate = buffers + buffer * 2 * thread;
    float* up = gate + buffer;
    for_parts(starts, begin, end, [&](std::size_t j, std::int64_t from, std::int64_t to) {
      const ExpertJob& job = jobs[j];
      const std::int64_t per_block = (panels + job.step - 1) / job.step, blocks = block_count(job.rows);
      for (std::int64_t i = from; i < to; ++i) {
        const std::int64_t block = i / per_block, panel = i % per_block * job.step;
        const std::int64_t last = std::min(panels, panel + job.step), column = panel * kPanel;
        const std::int64_t r0 = block_begin(job.rows, blocks, block);
        const std::int64_t rows = block_begin(job.rows, blocks, block + 1) - r0, ld = job.step * kPanel;
        run_block(*job.gate, job.gate_w, job.gate_x, block, panel, last, {gate, ld, column});
        run_block(*job.up, job.up_w, job.up_x, block, panel, last, {up, ld, column});
        gated_activation(ctx, call.desc->activation, gate, ld, up, ld, rows, std::min(size - column, ld),
                         h + (job.begin + r0) * size + column, size, isa);
      }
    });
  });
}

void down_and_combine(const ExecContext& ctx, const MoeFfnCall& call, std::span<const ExpertJob> jobs) {
  ArenaScope scope(ctx.scratch);
  const TokenPermutation& perm = *call.permutation;
  const std::int64_t hidden = call.desc->hidden_size, panels = panel_count(hidden);
  const std::int64_t pairs = perm.tokens * perm.top_k, ld = kDownPanels * kPanel;
  auto* buffers = ctx.scratch.take<float>(pairs * ld * ctx.threads.size());
  const CombineFunction combine = combine_for(experts_isa(*call.experts));
  const std::int64_t tasks = (panels + kDownPanels - 1) / kDownPanels;
  ctx.threads.parallel_for(tasks, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* out = buffers + pairs * ld * thread;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t panel = i * kDownPanels, last = std::min(panels, panel + kDownPanels);
      const std::int64_t column = panel * kPanel;
      for (const ExpertJob& job : jobs) {
        const std::int64_t blocks = block_count(job.rows);
        for (std::int64_t block = 0; block < blocks; ++block) {
          float* to = out + (job.begin + block_begin(job.rows, blocks, block)) * ld;
          run_block(*job.down, job.down_w, job.h, block, panel, last, {to, ld, column});
        }
      }
      for (std::int64_t t = 0; t < perm.tokens; ++t) {
        combine({out, ld, perm.pair_of.data() + t * perm.top_k, call.weights + t * perm.top_k, perm.top_k,
                 std::min(hidden - column, ld), call.y + t * hidden + column});
      }
    }
  });
}

void down_then_combine(const ExecContext& ctx, const MoeFfnCall& call, std::span<const ExpertJob> jobs) {
  ArenaScope scope(ctx.scratch);
  const TokenPermutation& perm = *call.permutation;
  const std::int64_t hidden = call.desc->hidden_size;
  auto* out = ctx.scratch.take<float>(perm.tokens * perm.top_k * hidden);
  auto* products = ctx.scratch.take<GemmJob>(static_cast<std::int64_t>(jobs.size()));
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    products[j] = {jobs[j].down, jobs[j].down_w, jobs[j].h, out + jobs[j].begin * hidden, hidden};
  }
  run_all(ctx, {products, jobs.size()});
  const CombineFunction combine = combine_for(experts_isa(*call.experts));
  ctx.threads.parallel_for(perm.tokens, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      combine({out, hidden, perm.pair_of.data() + t * perm.top_k, call.weights + t * perm.top_k, perm.top_k, hidden,
               call.y + t * hidden});
    }
  });
}

}  // namespace

void moe_ffn_fused(const ExecContext& ctx, const MoeFfnCall& call) {
  ArenaScope scope(ctx.scratch);
  const TokenPermutation& perm = *call.permutation;
  const std::int64_t pairs = perm.tokens * perm.top_k;
  float* h = call.intermediate != nullptr ? call.intermediate
                                          : ctx.scratch.take<float>(pairs * call.desc->intermediate_size);
  const std::span<const ExpertJob> jobs = plan_jobs(ctx, call, h);
  pack_inputs(ctx, jobs);
  gate_up(ctx, call, jobs, h);
  if (call.y == nullptr) return;
  pack_hidden(ctx, jobs);
  if (pairs <= kCombineInTask) {
    down_and_combine(ctx, call, jobs);
  } else {
    down_then_combine(ctx, call, jobs);
  }
}

}  // namespace kedge
