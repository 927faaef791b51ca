// y = x W^T + b: a packed weight and its optional bias (torch.nn.Linear).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec.h"
#include "kernels/gemm/gemm.h"
#include "nn/weight_source.h"

namespace kedge {

class Linear {
 public:
  Linear() = default;
  /// "<module>.weight" [out, in] and, with bias, "<module>.bias" [out].
  static Linear load(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in,
                     bool bias, const LoadOptions& options);
  /// A router: the weight becomes fp32 and the arithmetic is consistent with fp32 activations, whatever the options
  /// say.
  static Linear load_router(const WeightSource& source, const std::string& module, std::int64_t out, std::int64_t in,
                            const LoadOptions& options);
  explicit Linear(PackedWeight weight) : weight_(std::move(weight)) {}

  /// The probe sees x (Site::linear_input). x: [rows, in] rows ldx apart; y: [rows, out] rows ldy apart.
  void forward(const ExecContext& ctx, const float* x, std::int64_t ldx, std::int64_t rows, float* y,
               std::int64_t ldy) const;
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* y) const {
    forward(ctx, x, in(), rows, y, out());
  }

  std::int64_t out() const noexcept { return weight_.n(); }
  std::int64_t in() const noexcept { return weight_.k(); }
  const PackedWeight& weight() const noexcept { return weight_; }
  std::size_t num_bytes() const noexcept { return weight_.num_bytes() + bias_.size() * sizeof(float); }

 private:
  PackedWeight weight_;
  std::vector<float> bias_;  ///< [out] or empty
  std::string module_;       ///< names it to the probe; empty: not observed
};

}  // namespace kedge
