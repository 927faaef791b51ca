// Shared by this folder's tests: tensors to vectors and back, weights with outputs of order one.
#pragma once

#include <cmath>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <ATen/Context.h>

#include "base/rng.h"
#include "nn/weight_source.h"
#include "twin/options.h"
#include "twin/tensor.h"

namespace kedge::twin::testing {

inline std::vector<float> to_floats(const Tensor& tensor) {
  const Tensor host = tensor.detach().to(at::kCPU).to(at::kFloat).contiguous();
  const auto* first = host.const_data_ptr<float>();
  return {first, first + host.numel()};
}

inline std::vector<std::int32_t> to_integers(const Tensor& tensor) {
  const Tensor host = tensor.to(at::kCPU).to(at::kInt).contiguous();
  const auto* first = host.const_data_ptr<std::int32_t>();
  return {first, first + host.numel()};
}

inline Tensor from_floats(std::span<const float> values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::TensorOptions().dtype(at::kFloat)).clone();
}

inline Tensor from_ids(std::span<const std::int32_t> values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<std::int32_t*>(values.data()), shape, at::TensorOptions().dtype(at::kInt))
      .to(at::kLong);
}

/// "cpu", and "cuda" where libtorch sees a GPU: what outside witnesses say is asked of each.
inline std::vector<std::string> devices() {
  return at::hasCUDA() ? std::vector<std::string>{"cpu", "cuda"} : std::vector<std::string>{"cpu"};
}

/// On that device, with kernels that repeat to the bit.
inline Options options_on(const std::string& device) {
  Options options;
  options.device = parse_device(device);
  prefer_repeatable_kernels(options.device);
  return options;
}

/// Normal values of a name: matrices with the deviation 1 / sqrt(in), norms around 1, so that no mechanism drowns.
class FanInSource : public WeightSource {
 public:
  explicit FanInSource(std::uint64_t seed) : seed_(seed) {}

  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override {
    const std::lock_guard lock(mutex_);
    // Of this size: the same module may be asked for in another.
    std::vector<float>& values = matrices_[module + std::to_string(rows) + "x" + std::to_string(cols)];
    if (values.empty()) values = normals(module, rows * cols, 1.0 / std::sqrt(static_cast<double>(cols)), 0.0);
    return TensorView{DType::f32, {rows, cols}, reinterpret_cast<const std::byte*>(values.data())};
  }
  std::vector<float> vector(const std::string& name, std::int64_t size) const override {
    return name.ends_with("norm.weight") ? normals(name, size, 0.3, 1.0) : normals(name, size, 0.3, 0.0);
  }
  void done(const std::string&) const noexcept override {}

 private:
  std::vector<float> normals(const std::string& name, std::int64_t count, double deviation, double mean) const {
    Rng rng(std::hash<std::string>()(name) ^ seed_);
    std::vector<float> out(static_cast<std::size_t>(count));
    for (float& value : out) value = static_cast<float>(mean + deviation * rng.normal());
    return out;
  }

  std::uint64_t seed_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<float>> matrices_;
};

}  // namespace kedge::twin::testing
