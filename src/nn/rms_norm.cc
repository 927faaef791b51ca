#include "nn/rms_norm.h"

#include "kernels/rmsnorm/rmsnorm.h"

namespace kedge {

RmsNorm RmsNorm::load(const WeightSource& source, const std::string& module, std::int64_t size, float eps, Isa isa) {
  RmsNorm norm;
  norm.weight_ = source.vector(module + ".weight", size);
  norm.eps_ = eps;
  norm.isa_ = isa;
  return norm;
}

void RmsNorm::forward(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, float* y,
                      std::int64_t ldy) const {
  rmsnorm(ctx, x, ldx, rows, size(), weight_.data(), eps_, y, ldy, isa_);
}

}  // namespace kedge
