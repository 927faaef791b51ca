#include "ptq/layers/overlay_source.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace kedge {

void OverlaySource::set(const std::string& module, QuantTensor weight) {
  quantized_.insert_or_assign(module, std::move(weight));
  replaced_.erase(module + ".weight");
}

void OverlaySource::set_stack(const std::string& name, std::shared_ptr<const AnchorDelta> stack) {
  const std::size_t dot = name.rfind('.');
  for (std::int64_t e = 0; e < stack->experts(); ++e) {
    replaced_.erase(name.substr(0, dot) + "." + std::to_string(e) + name.substr(dot) + ".weight");
  }
  stacks_.insert_or_assign(name, std::move(stack));
}

std::shared_ptr<const AnchorDelta> OverlaySource::stack(const std::string& name) const {
  const auto at = stacks_.find(name);
  return at != stacks_.end() ? at->second : base_.stack(name);
}

void OverlaySource::replace(const std::string& name, Tensor values) {
  KEDGE_CHECK(values.dtype() == DType::f32);
  replaced_.insert_or_assign(name, std::move(values));
}

WeightData OverlaySource::weight(const std::string& module, std::int64_t rows, std::int64_t cols) const {
  if (const auto at = quantized_.find(module); at != quantized_.end()) return at->second;
  if (const auto at = replaced_.find(module + ".weight"); at != replaced_.end()) return at->second.view();
  return base_.weight(module, rows, cols);
}

std::vector<float> OverlaySource::vector(const std::string& name, std::int64_t size) const {
  const auto at = replaced_.find(name);
  if (at == replaced_.end()) return base_.vector(name, size);
  KEDGE_CHECK(at->second.size() == size);
  const float* values = at->second.data<float>();
  return {values, values + size};
}

Tensor OverlaySource::plain(const std::string& module, std::int64_t rows, std::int64_t cols) const {
  if (const auto at = replaced_.find(module + ".weight"); at != replaced_.end()) {
    return to_float_matrix(at->second.view(), module);
  }
  return to_float_matrix(base_.weight(module, rows, cols), module);
}

}  // namespace kedge
