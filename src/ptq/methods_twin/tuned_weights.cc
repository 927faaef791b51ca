#include "ptq/methods_twin/tuned_weights.h"

#include <algorithm>

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

// Temporaries of an operator on a bundle are as large as it: 64 MiB each.
constexpr std::int64_t kBundledElements = std::int64_t{1} << 24;

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
    if (module->args) place(*module);
  }
  for (Bundle& bundle : bundles_) fill(bundle);
  keep();
}

void TunedWeights::place(const PlannedModule& module) {
  const std::int64_t size = module.linear.rows * module.linear.cols, group = module.args->group_for(module.linear.cols);
  const std::int64_t most = options_.device.is_cpu() ? 0 : kBundledElements;
  const auto has_room = [&](const Bundle& bundle) {
    const PlannedModule& other = *parts_[bundle.parts[0]].module;
    const Part& last = parts_[bundle.parts.back()];
    return *other.args == *module.args && other.scale_dtype() == module.scale_dtype() &&
           other.args->group_for(other.linear.cols) == group && (last.first + last.groups) * group + size <= most;
  };
  const auto at = std::find_if(bundles_.begin(), bundles_.end(), has_room);
  const auto index = static_cast<std::size_t>(at - bundles_.begin());
  if (at == bundles_.end()) bundles_.emplace_back();
  Bundle& bundle = bundles_[index];
  const std::int64_t first =
      bundle.parts.empty() ? 0 : parts_[bundle.parts.back()].first + parts_[bundle.parts.back()].groups;
  bundle.parts.push_back(parts_.size());
  by_name_.emplace(module.linear.canonical + ".weight", parts_.size());
  parts_.push_back({&module, index, first, size / group, {}});
}

void TunedWeights::fill(Bundle& bundle) {
  const PlannedModule& like = *parts_[bundle.parts[0]].module;
  const Part& last = parts_[bundle.parts.back()];
  const std::int64_t groups = last.first + last.groups, group = like.args->group_for(like.linear.cols);
  const auto on_cpu = at::TensorOptions().dtype(at::kFloat);
  at::Tensor min = at::empty({groups}, on_cpu), max = at::empty({groups}, on_cpu);
  std::vector<at::Tensor> weights;
  for (const std::size_t p : bundle.parts) {
    const Part& part = parts_[p];
    const LinearRef& linear = part.module->linear;
    weights.push_back(originals_[linear.canonical + ".weight"].to(at::kFloat).contiguous().view({part.groups, group}));
    const at::Tensor host = on_host(weights.back());
    check_finite({host.const_data_ptr<float>(), static_cast<std::size_t>(host.numel())}, linear.module);
    find_group_ranges(host.const_data_ptr<float>(), part.groups, group, data(min) + part.first, data(max) + part.first);
  }
  const auto place = on_cpu.device(options_.device);
  FakeQuantTensors& state = bundle.state;
  state.args = *like.args;
  state.scale_dtype = like.scale_dtype();
  state.weights = weights.size() == 1 ? weights[0] : at::cat(weights, 0);
  state.min = min.to(options_.device);
  state.max = max.to(options_.device);
  state.alpha = at::ones({groups}, place);
  state.beta = at::ones({groups}, place);
  if (input_.recipe.tune.base == TuneBase::rounding) {
    state.rounding = at::zeros({groups, group}, place);
  } else {
    state.factor = at::ones({groups}, place);
  }
  bundle.values = at::empty({groups, group}, place);
  for (const std::size_t p : bundle.parts) {
    Part& part = parts_[p];
    part.leaf = bundle.values.narrow(0, part.first, part.groups)
                    .view({part.module->linear.rows, part.module->linear.cols})
                    .detach()
                    .set_requires_grad(true);
  }
}

twin::WeightFunction TunedWeights::original() const {
  return [this](const std::string& name) { return originals_[name]; };
}

twin::WeightFunction TunedWeights::quantized() const {
  return [this](const std::string& name) {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? originals_[name] : parts_[at->second].leaf;
  };
}

void TunedWeights::refresh() {
  for (Part& part : parts_) part.leaf.mutable_grad() = at::Tensor();
  std::vector<FakeQuantMatrix> views;
  std::vector<float*> out;
  const at::NoGradGuard no_graph;
  for (Bundle& bundle : bundles_) {
    if (options_.device.is_cpu()) {
      views.push_back(view(bundle.state));
      out.push_back(data(bundle.values));
    } else {
      bundle.values.copy_(fake_quantize(bundle.state));
    }
  }
  if (!views.empty()) fake_quantize(input_.threads, input_.options.isa, views, out);
}

at::Tensor TunedWeights::gradient_of(const Bundle& bundle) const {
  std::vector<at::Tensor> gradients;
  bool any = false;
  for (const std::size_t p : bundle.parts) {
    const Part& part = parts_[p];
    const at::Tensor& gradient = part.leaf.grad();
    any = any || gradient.defined();
    const at::Tensor whole = gradient.defined() ? gradient : at::zeros_like(part.leaf);  // moves nothing
    gradients.push_back(whole.contiguous().view({part.groups, -1}));
  }
  if (!any) return {};
  return gradients.size() == 1 ? gradients[0] : at::cat(gradients, 0);
}

void TunedWeights::step(double lr) {
  const at::NoGradGuard no_graph;
  std::vector<FakeQuantMatrix> views;
  std::vector<at::Tensor> gradients;
  std::vector<const float*> pointers;
  for (Bundle& bundle : bundles_) {
    const at::Tensor gradient = gradient_of(bundle);
    if (!gradient.defined()) continue;
    if (options_.device.is_cpu()) {
      views.push_back(view(bundle.state));
      gradients.push_back(gradient);
      pointers.push_back(gradient.const_data_ptr<float>());
    } else {
      step_fake_quantization(bundle.state, gradient, lr);
    }
  }
  if (!views.empty()) {
    step_fake_quantization(input_.threads, input_.options.isa, views, pointers, static_cast<float>(lr));
  }
}

void TunedWeights::keep() {
  const at::NoGradGuard no_graph;
  for (Bundle& bundle : bundles_) {
    remember(bundle.best.rounding, bundle.state.rounding);
    remember(bundle.best.alpha, bundle.state.alpha);
    remember(bundle.best.beta, bundle.state.beta);
    remember(bundle.best.factor, bundle.state.factor);
  }
}

const TunedWeights::Part& TunedWeights::part(const std::string& name) const {
  const auto at = by_name_.find(name);
  KEDGE_CHECK(at != by_name_.end());
  return parts_[at->second];
}

QuantTensor TunedWeights::encode(const PlannedModule& module) const {
  const Part& which = part(module.linear.canonical + ".weight");
  const Bundle& bundle = bundles_[which.bundle];
  const auto own = [&](const at::Tensor& of_all) {
    return of_all.defined() ? on_host(of_all.narrow(0, which.first, which.groups)) : of_all;
  };
  FakeQuantTensors best;
  best.args = bundle.state.args;
  best.scale_dtype = bundle.state.scale_dtype;
  best.weights = own(bundle.state.weights);
  best.min = own(bundle.state.min);
  best.max = own(bundle.state.max);
  best.rounding = own(bundle.best.rounding);
  best.alpha = own(bundle.best.alpha);
  best.beta = own(bundle.best.beta);
  best.factor = own(bundle.best.factor);
  return encode_fake_quantized(input_.options.isa, view(best), module.linear.rows, module.linear.cols);
}

std::vector<float> TunedWeights::original_values(const PlannedModule& module) const {
  const at::Tensor host = on_host(originals_[module.linear.canonical + ".weight"].to(at::kFloat));
  const auto* first = host.const_data_ptr<float>();
  return {first, first + host.numel()};
}

at::Tensor TunedWeights::gradient(const std::string& name) const { return part(name).leaf.grad(); }

}  // namespace kedge
