#include "twin/scope.h"

#include <cstdlib>

#include "base/check.h"

namespace kedge::twin {

Tensor Scope::linear(const std::string& module, const Tensor& x, bool bias) const {
  const auto type = options.compute_dtype;
  const Tensor weight = weights(prefix + module + ".weight").to(type);
  if (!bias) return at::linear(x.to(type), weight);
  return at::linear(x.to(type), weight, weights(prefix + module + ".bias").to(type));
}

Tensor Scope::rms_norm(const std::string& module, const Tensor& x, double eps) const {
  const Tensor weight = weights(prefix + module + ".weight");
  return at::rms_norm(x.to(options.dtype), {weight.size(0)}, weight, eps);
}

Tensor activation(FfnActivation activation, const Tensor& x) {
  switch (activation) {
    case FfnActivation::silu: return at::silu(x);
    case FfnActivation::gelu: return at::gelu(x);
    case FfnActivation::gelu_tanh: return at::gelu(x, "tanh");
    case FfnActivation::relu2: return x.relu().square();
  }
  KEDGE_CHECK(!"an activation without a formula");
  std::abort();
}

Tensor gated_activation(FfnActivation act, const Tensor& gate, const Tensor& up) { return activation(act, gate) * up; }

Tensor dense_ffn(const Scope& scope, const Mlp& spec, const Tensor& x) {
  if (spec.gated) return gated_ffn(scope, "", spec.hidden_act, x);
  return scope.linear("down_proj", activation(spec.hidden_act, scope.linear("up_proj", x, false)), false);
}

Tensor gated_ffn(const Scope& scope, const std::string& module, FfnActivation activation, const Tensor& x) {
  const Tensor gate = scope.linear(module + "gate_proj", x, false), up = scope.linear(module + "up_proj", x, false);
  return scope.linear(module + "down_proj", gated_activation(activation, gate, up), false);
}

}  // namespace kedge::twin
