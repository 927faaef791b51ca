#include "nn/mlp.h"

#include "kernels/swiglu/swiglu.h"

namespace kedge {

MlpModule MlpModule::load(const WeightSource& source, const std::string& prefix, const Mlp& spec,
                          std::int64_t hidden_size, const LoadOptions& options) {
  MlpModule module;
  module.spec_ = spec;
  module.isa_ = options.isa;
  const std::int64_t inner = spec.intermediate_size;
  module.gate_proj_ = Linear::load(source, prefix + ".gate_proj", inner, hidden_size, false, options);
  module.up_proj_ = Linear::load(source, prefix + ".up_proj", inner, hidden_size, false, options);
  module.down_proj_ = Linear::load(source, prefix + ".down_proj", hidden_size, inner, false, options);
  return module;
}

void MlpModule::forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t inner = spec_.intermediate_size;
  float* gate = ctx.scratch.take<float>(rows * inner);
  float* up = ctx.scratch.take<float>(rows * inner);
  gate_proj_.forward(ctx, x, rows, gate);
  up_proj_.forward(ctx, x, rows, up);
  gated_activation(ctx, spec_.hidden_act, gate, inner, up, inner, rows, inner, gate, inner, isa_);
  down_proj_.forward(ctx, gate, rows, y);
}

std::size_t MlpModule::num_bytes() const noexcept {
  return gate_proj_.num_bytes() + up_proj_.num_bytes() + down_proj_.num_bytes();
}

}  // namespace kedge
