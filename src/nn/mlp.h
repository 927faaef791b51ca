// The dense FFN: down_proj(act(gate_proj x) * up_proj x), or without a gate down_proj(act(up_proj x)). Also the shared
// expert of a MoE layer.
#pragma once

#include <cstdint>
#include <string>

#include "base/exec.h"
#include "nn/linear.h"
#include "nn/mixers.h"

namespace kedge {

class MlpModule {
 public:
  /// prefix: "model.layers.0.mlp".
  static MlpModule load(const WeightSource& source, const std::string& prefix, const Mlp& spec,
                        std::int64_t hidden_size, const LoadOptions& options);
  /// x, y: [rows, H].
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* y) const;
  std::size_t num_bytes() const noexcept;
  template <class F>
  void each_linear(F&& f) const {
    if (spec_.gated) f("gate_proj", gate_proj_);
    f("up_proj", up_proj_);
    f("down_proj", down_proj_);
  }

 private:
  Mlp spec_;
  Linear gate_proj_, up_proj_, down_proj_;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
