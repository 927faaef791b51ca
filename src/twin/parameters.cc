#include "twin/parameters.h"

#include <map>
#include <memory>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/normal.h>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge::twin {
namespace {

/// A copy, in the options' type and place.
Tensor to_tensor(const float* values, const Shape& shape, const Options& options) {
  const Tensor view = at::from_blob(const_cast<float*>(values), shape, at::TensorOptions().dtype(at::kFloat));
  return view.to(at::TensorOptions().dtype(options.dtype).device(options.device), /*non_blocking=*/false,
                 /*copy=*/true);
}

/// "<module>.weight" -> "<module>".
std::string module_of(const ParameterInfo& info) {
  constexpr std::string_view kLeaf = ".weight";
  KEDGE_CHECK(info.name.ends_with(kLeaf));
  return info.name.substr(0, info.name.size() - kLeaf.size());
}

/// Each stack once: reading one checks all of it.
class StackReader {
 public:
  explicit StackReader(const WeightSource& source) : source_(source) {}
  /// null where the experts stand for themselves.
  const AnchorDelta* find(const std::string& name) {
    const auto [at, is_new] = stacks_.try_emplace(name);
    if (is_new) at->second = source_.stack(name);
    return at->second.get();
  }

 private:
  const WeightSource& source_;
  std::map<std::string, std::shared_ptr<const AnchorDelta>> stacks_;
};

/// 3 of "model.layers.0.mlp.experts.3.gate_proj.weight".
std::int64_t expert_of(const std::string& name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  return std::stoll(name.substr(name.find(kExperts) + kExperts.size()));
}

Tensor decoded(const AnchorDelta& stack, std::int64_t expert, const ParameterInfo& info, const Options& options) {
  if (stack.rows != info.shape[0] || stack.cols != info.shape[1] || expert >= stack.experts()) {
    throw Error(ErrorCode::mismatch,
                info.name + " is of a stack of " + std::to_string(stack.experts()) + " matrices " +
                    shape_string({stack.rows, stack.cols}),
                "a matrix " + shape_string(info.shape) + " by config.json");
  }
  std::vector<float> values(static_cast<std::size_t>(stack.rows * stack.cols));
  decode(stack, expert, values);
  return to_tensor(values.data(), info.shape, options);
}

}  // namespace

void Parameters::insert(std::string name, Tensor value) {
  const bool is_new = index_.emplace(name, items_.size()).second;
  KEDGE_CHECK(is_new);
  items_.emplace_back(std::move(name), std::move(value));
}

const Tensor& Parameters::operator[](const std::string& name) const {
  const auto found = index_.find(name);
  KEDGE_CHECK(found != index_.end());
  return items_[found->second].second;
}

void Parameters::require_gradients(bool required) {
  for (Item& item : items_) {
    item.second.set_requires_grad(required && !item.first.ends_with(".e_score_correction_bias"));
  }
}

std::vector<Tensor> Parameters::trainable() const {
  std::vector<Tensor> out;
  for (const Item& item : items_) {
    if (item.second.requires_grad()) out.push_back(item.second);
  }
  return out;
}

Parameters load_parameters(const std::vector<ParameterInfo>& infos, const WeightSource& source,
                           const Options& options) {
  Parameters out;
  StackReader stacks(source);
  for (const ParameterInfo& info : infos) {
    if (info.shape.size() == 1) {
      const std::vector<float> values = source.vector(info.name, info.shape[0]);
      out.insert(info.name, to_tensor(values.data(), info.shape, options));
      continue;
    }
    const std::string module = module_of(info);
    if (const std::string stacked = stacked_name(info.name); !stacked.empty()) {
      const AnchorDelta* stack = stacks.find(stacked.substr(0, stacked.size() - std::string_view(".weight").size()));
      if (stack != nullptr) {
        out.insert(info.name, decoded(*stack, expert_of(info.name), info, options));
        continue;
      }
    }
    const kedge::Tensor values = to_float_matrix(source.weight(module, info.shape[0], info.shape[1]), module);
    out.insert(info.name, to_tensor(values.data<float>(), info.shape, options));
    source.done(module);
  }
  return out;
}

Parameters random_parameters(const std::vector<ParameterInfo>& infos, std::uint64_t seed, const Options& options,
                             double deviation) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto on_host = at::TensorOptions().dtype(at::kFloat);
  Parameters out;
  for (const ParameterInfo& info : infos) {
    Tensor value;
    switch (info.kind) {
      case ParameterKind::norm: value = at::ones(info.shape, on_host); break;
      case ParameterKind::bias:
      case ParameterKind::temperature:
      case ParameterKind::selection_bias: value = at::zeros(info.shape, on_host); break;
      case ParameterKind::embedding:
      case ParameterKind::matrix:
      case ParameterKind::router: value = at::empty(info.shape, on_host).normal_(0.0, deviation, generator); break;
    }
    out.insert(info.name, value.to(at::TensorOptions().dtype(options.dtype).device(options.device)));
  }
  return out;
}

}  // namespace kedge::twin
