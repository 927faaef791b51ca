#include "nn/mlp.h"

#include "kernels/swiglu/activation.h"
#include "kernels/swiglu/swiglu.h"
#include "nn/probe.h"

namespace kedge {

MlpModule MlpModule::load(const WeightSource& source, const std::string& prefix, const Mlp& spec,
                          std::int64_t hidden_size, const LoadOptions& options) {
  MlpModule module;
  module.spec_ = spec;
  module.isa_ = options.isa;
  const std::int64_t inner = spec.intermediate_size;
  if (spec.gated) module.gate_proj_ = Linear::load(source, prefix + ".gate_proj", inner, hidden_size, false, options);
  module.up_proj_ = Linear::load(source, prefix + ".up_proj", inner, hidden_size, false, options);
  module.down_proj_ = Linear::load(source, prefix + ".down_proj", hidden_size, inner, false, options);
  return module;
}

void MlpModule::forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t inner = spec_.intermediate_size;
  float* up = ctx.scratch.take<float>(rows * inner);
  up_proj_.forward(ctx, x, rows, up);
  if (is_complete(ctx.probe)) return;
  if (spec_.gated) {
    float* gate = ctx.scratch.take<float>(rows * inner);
    gate_proj_.forward(ctx, x, rows, gate);
    if (is_complete(ctx.probe)) return;
    gated_activation(ctx, spec_.hidden_act, gate, inner, up, inner, rows, inner, up, inner, isa_);
  } else {
    activation(ctx, spec_.hidden_act, up, inner, rows, inner, up, inner, isa_);
  }
  down_proj_.forward(ctx, up, rows, y);
}

std::size_t MlpModule::num_bytes() const noexcept {
  return gate_proj_.num_bytes() + up_proj_.num_bytes() + down_proj_.num_bytes();
}

}  // namespace kedge
