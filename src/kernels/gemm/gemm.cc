#include "kernels/gemm/gemm.h"

#include "base/check.h"
#include "kernels/gemm/jobs.h"
#include "kernels/gemm/layout.h"

namespace kedge {

void gemm(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t m, const PackedWeight& w, float* y,
          std::int64_t ldy) {
  KEDGE_CHECK(w.layout_ == kGemmLayoutVersion);
  if (m == 0 || w.n() == 0) {
    return;
  }
  ArenaScope scope(ctx.scratch);
  GemmJob job{};
  job.row = &select_gemm({w.desc_, w.options_, m});
  job.w = weight_view(w);
  job.in = plan_rows(ctx.scratch, *job.row, job.w, {x, ldx, nullptr, m});
  job.y = y;
  job.ldy = ldy;
  pack_all(ctx, {&job.in, 1});
  run_all(ctx, {&job, 1});
}

}  // namespace kedge
