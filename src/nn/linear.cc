#include "nn/linear.h"

#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {

Linear Linear::load(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in, bool bias,
                    const LoadOptions& options) {
  Linear linear(pack_weight_data(source.weight(module, out, in), options, module));
  source.done(module);
  linear.module_ = module;
  if (bias) linear.bias_ = source.vector(module + ".bias", out);
  return linear;
}

Linear Linear::load_router(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in,
                           const LoadOptions& options) {
  LoadOptions exact = options;
  exact.numerics = Numerics::consistent;
  exact.activations = Activations::fp32;
  Linear linear(pack_weight(to_float_matrix(source.weight(module, out, in), module).view(), exact));
  source.done(module);
  linear.module_ = module;
  return linear;
}

void Linear::forward(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, float* y,
                     std::int64_t ldy) const {
  if (ctx.probe != nullptr && ctx.probe->wants(Site::linear_input) && !module_.empty()) {
    ctx.probe->linear_input(module_, rows, in(), x, ldx);
    if (is_complete(ctx.probe)) return;
  }
  gemm(ctx, x, ldx, rows, weight_, y, ldy);
  if (!bias_.empty()) add_bias(ctx, y, ldy, rows, out(), bias_.data());
}

}  // namespace kedge
