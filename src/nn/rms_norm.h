// RMSNorm with its weight (kernels/rmsnorm).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "nn/weight_source.h"

namespace kedge {

class RmsNorm {
 public:
  RmsNorm() = default;
  /// "<module>.weight" [size].
  static RmsNorm load(const WeightSource& source, const std::string& module, std::int64_t size, float eps, Isa isa);

  /// x, y: [rows, size], rows ldx and ldy apart; may be the same memory.
  void forward(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, float* y,
               std::int64_t ldy) const;
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* y) const {
    forward(ctx, x, size(), rows, y, size());
  }

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(weight_.size()); }
  bool empty() const noexcept { return weight_.empty(); }
  std::size_t num_bytes() const noexcept { return weight_.size() * sizeof(float); }

 private:
  std::vector<float> weight_;
  float eps_ = 0;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
