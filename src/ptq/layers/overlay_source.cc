#include "ptq/layers/overlay_source.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace kedge {

void OverlaySource::set(const std::string& module, QuantTensor weight) {
  quantized_.insert_or_assign(module, std::move(weight));
  replaced_.erase(module + ".weight");
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
