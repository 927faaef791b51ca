// What the mechanisms of this folder share: the weights below a module's name, linear and RMSNorm on them.
#pragma once

#include <string>

#include "nn/mixers.h"
#include "twin/options.h"
#include "twin/pass.h"

namespace kedge::twin {

/// One module in one pass.
struct Scope {
  const WeightFunction& weights;
  const Options& options;
  std::string prefix;  ///< "model.layers.0.self_attn."

  /// x W^T + b of "<prefix><module>", x: [..., in]; in and out of the compute type.
  Tensor linear(const std::string& module, const Tensor& x, bool bias) const;
  /// x / sqrt(mean(x^2) + eps) * weight of "<prefix><module>", in the options' dtype.
  Tensor rms_norm(const std::string& module, const Tensor& x, double eps) const;
};

/// act(x); act(gate) * up.
Tensor activation(FfnActivation activation, const Tensor& x);
Tensor gated_activation(FfnActivation act, const Tensor& gate, const Tensor& up);
/// The dense FFN of an Mlp.
Tensor dense_ffn(const Scope& scope, const Mlp& spec, const Tensor& x);
/// The gated FFN: scope's "<module>gate_proj", "up_proj" and "down_proj"; x: [N, H].
Tensor gated_ffn(const Scope& scope, const std::string& module, FfnActivation activation, const Tensor& x);

}  // namespace kedge::twin
