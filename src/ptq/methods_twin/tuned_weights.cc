#include "ptq/methods_twin/tuned_weights.h"

#include "base/check.h"
#include "kernels/fake_quant/fake_quant.h"
#include "ptq/module_error.h"

namespace kedge {
namespace {

float* data(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr; }

FakeQuantMatrix view(const FakeQuantTensors& m) {
  FakeQuantMatrix out;
  out.args = m.args;
  out.scale_dtype = m.scale_dtype;
  out.groups = m.weights.size(0);
  out.group = m.weights.size(1);
  out.weights = m.weights.const_data_ptr<float>();
  out.min = m.min.const_data_ptr<float>();
  out.max = m.max.const_data_ptr<float>();
  out.rounding = data(m.rounding);
  out.alpha = data(m.alpha);
  out.beta = data(m.beta);
  out.factor = data(m.factor);
  return out;
}

at::Tensor on_host(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(at::kCPU).contiguous() : tensor; }

void remember(at::Tensor& best, const at::Tensor& value) {
  if (!value.defined()) return;
  if (best.defined()) {
    best.copy_(value);
  } else {
    best = value.clone();
  }
}

}  // namespace

TunedWeights::TunedWeights(const LayerInput& input, const twin::Options& options)
    : input_(input),
      options_(options),
      originals_(twin::load_parameters(twin::list_layer_parameters(input.spec, input.layer), input.source, options)) {
  for (const PlannedModule* module : input.modules) {
    if (module->args) add(*module);
  }
  keep();
}

void TunedWeights::add(const PlannedModule& module) {
  const std::string name = module.linear.canonical + ".weight";
  const at::Tensor weight = originals_[name].to(at::kFloat).contiguous();
  const at::Tensor host = on_host(weight);
  check_finite({host.const_data_ptr<float>(), static_cast<std::size_t>(host.numel())}, module.linear.module);

  Matrix matrix;
  matrix.module = &module;
  FakeQuantTensors& state = matrix.state;
  state.args = *module.args;
  state.scale_dtype = module.scale_dtype();
  const std::int64_t group = state.args.group_for(module.linear.cols), groups = weight.numel() / group;
  state.weights = weight.view({groups, group});
  const auto on_cpu = at::TensorOptions().dtype(at::kFloat);
  at::Tensor min = at::empty({groups}, on_cpu), max = at::empty({groups}, on_cpu);
  find_group_ranges(host.const_data_ptr<float>(), groups, group, data(min), data(max));
  const auto place = on_cpu.device(options_.device);
  state.min = min.to(options_.device);
  state.max = max.to(options_.device);
  state.alpha = at::ones({groups}, place);
  state.beta = at::ones({groups}, place);
  if (input_.recipe.tune.base == TuneBase::rounding) {
    state.rounding = at::zeros({groups, group}, place);
  } else {
    state.factor = at::ones({groups}, place);
  }
  matrix.leaf = at::empty({module.linear.rows, module.linear.cols}, place).set_requires_grad(true);
  by_name_.emplace(name, matrices_.size());
  matrices_.push_back(std::move(matrix));
}

twin::WeightFunction TunedWeights::original() const {
  return [this](const std::string& name) { return originals_[name]; };
}

twin::WeightFunction TunedWeights::quantized() const {
  return [this](const std::string& name) {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? originals_[name] : matrices_[at->second].leaf;
  };
}

void TunedWeights::refresh() {
  std::vector<FakeQuantMatrix> views;
  std::vector<float*> out;
  const at::NoGradGuard no_graph;
  for (Matrix& matrix : matrices_) {
    matrix.leaf.mutable_grad() = at::Tensor();
    if (options_.device.is_cpu()) {
      views.push_back(view(matrix.state));
      out.push_back(data(matrix.leaf));
    } else {
      matrix.leaf.copy_(fake_quantize(matrix.state).view_as(matrix.leaf));
    }
  }
  if (!views.empty()) fake_quantize(input_.threads, input_.options.isa, views, out);
}

void TunedWeights::step(double lr) {
  std::vector<FakeQuantMatrix> views;
  std::vector<at::Tensor> gradients;
  std::vector<const float*> pointers;
  for (Matrix& matrix : matrices_) {
    if (!matrix.leaf.grad().defined()) continue;
    const at::Tensor gradient = matrix.leaf.grad().contiguous().view_as(matrix.state.weights);
    if (options_.device.is_cpu()) {
      views.push_back(view(matrix.state));
      gradients.push_back(gradient);
      pointers.push_back(gradient.const_data_ptr<float>());
    } else {
      step_fake_quantization(matrix.state, gradient, lr);
    }
  }
  if (!views.empty()) {
    step_fake_quantization(input_.threads, input_.options.isa, views, pointers, static_cast<float>(lr));
  }
}

void TunedWeights::keep() {
  const at::NoGradGuard no_graph;
  for (Matrix& matrix : matrices_) {
    remember(matrix.best_rounding, matrix.state.rounding);
    remember(matrix.best_alpha, matrix.state.alpha);
    remember(matrix.best_beta, matrix.state.beta);
    remember(matrix.best_factor, matrix.state.factor);
  }
}

QuantTensor TunedWeights::encode(const PlannedModule& module) const {
  const auto at = by_name_.find(module.linear.canonical + ".weight");
  KEDGE_CHECK(at != by_name_.end());
  const Matrix& matrix = matrices_[at->second];
  FakeQuantTensors best = matrix.state;
  best.weights = on_host(best.weights);
  best.min = on_host(best.min);
  best.max = on_host(best.max);
  best.rounding = on_host(matrix.best_rounding);
  best.alpha = on_host(matrix.best_alpha);
  best.beta = on_host(matrix.best_beta);
  best.factor = on_host(matrix.best_factor);
  return encode_fake_quantized(input_.options.isa, view(best), module.linear.rows, module.linear.cols);
}

std::vector<float> TunedWeights::original_values(const PlannedModule& module) const {
  const at::Tensor host = on_host(originals_[module.linear.canonical + ".weight"].to(at::kFloat));
  const auto* first = host.const_data_ptr<float>();
  return {first, first + host.numel()};
}

at::Tensor TunedWeights::gradient(const std::string& name) const {
  const auto at = by_name_.find(name);
  KEDGE_CHECK(at != by_name_.end());
  return matrices_[at->second].leaf.grad();
}

}  // namespace kedge
