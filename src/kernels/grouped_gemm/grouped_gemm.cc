#include "kernels/grouped_gemm/grouped_gemm.h"

#include "base/check.h"
#include "kernels/gemm/jobs.h"
#include "kernels/gemm/layout.h"

namespace kedge {

void grouped_gemm(const ExecContext& ctx, const float* x, std::span<const std::int32_t> gather,
                  std::span<const std::int32_t> offsets, std::span<const PackedWeight* const> experts, float* y) {
  KEDGE_CHECK(offsets.size() == experts.size() + 1);
  ArenaScope scope(ctx.scratch);
  const auto count = static_cast<std::int64_t>(experts.size());
  auto* jobs = ctx.scratch.take<GemmJob>(count);
  auto* packed = ctx.scratch.take<PackedRows>(count);
  std::size_t used = 0;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::int64_t begin = offsets[e], rows = offsets[e + 1] - begin;
    if (rows == 0) {
      continue;
    }
    const PackedWeight& w = *experts[e];
    GemmJob& job = jobs[used];
    job.row = &select_gemm({w.desc_, w.options_, rows});
    job.w = weight_view(w);
    KEDGE_CHECK(w.layout_ == kGemmLayoutVersion && w.n() == jobs[0].w.n && w.k() == jobs[0].w.k);
    const RowSource source = gather.empty() ? RowSource{x + begin * w.k(), w.k(), nullptr, rows}
                                            : RowSource{x, w.k(), gather.data() + begin, rows};
    job.in = plan_rows(ctx.scratch, *job.row, job.w, source);
    job.y = y + begin * w.n();
    job.ldy = w.n();
    packed[used++] = job.in;
  }
  if (used == 0) {
    return;
  }
  pack_all(ctx, {packed, used});
  run_all(ctx, {jobs, used});
}

}  // namespace kedge
