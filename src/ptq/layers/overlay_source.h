// A layer under quantization as a source of weights: what has been decided so far over the original's weights.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/weight_source.h"

namespace kedge {

class OverlaySource : public WeightSource {
 public:
  /// base must outlive the overlay.
  explicit OverlaySource(const WeightSource& base) : base_(base) {}
  OverlaySource(const OverlaySource&) = delete;  // over another one: a cast to WeightSource

  /// By canonical module name; a replaced plain weight of the same module goes.
  void set(const std::string& module, QuantTensor weight);
  /// By the stack's name ("model.layers.1.mlp.experts.up_proj"); what was replaced of its experts goes.
  void set_stack(const std::string& name, std::shared_ptr<const AnchorDelta> stack);
  /// A plain tensor by its full canonical name ("model.layers.0.mlp.gate.weight"), fp32.
  void replace(const std::string& name, Tensor values);

  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override;
  std::shared_ptr<const AnchorDelta> stack(const std::string& name) const override;
  std::vector<float> vector(const std::string& name, std::int64_t size) const override;
  /// Pages stay: a layer is built more than once while it is quantized.
  void done(const std::string&) const noexcept override {}

  /// The matrix that a method is to quantize: the replaced one, else the original. fp32 [rows, cols].
  Tensor plain(const std::string& module, std::int64_t rows, std::int64_t cols) const;

 private:
  const WeightSource& base_;
  std::map<std::string, QuantTensor, std::less<>> quantized_;
  std::map<std::string, std::shared_ptr<const AnchorDelta>, std::less<>> stacks_;
  std::map<std::string, Tensor, std::less<>> replaced_;
};

}  // namespace kedge
