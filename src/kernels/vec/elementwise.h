// Row kernels of the elementwise ops (rmsnorm, rope, softmax, swiglu), one set per ISA: elementwise_<isa>.cc, each the
// same source (elementwise_impl.h) and the same bits. Single-threaded, no allocation; the ops' own .cc split the work.
#pragma once

#include <cstdint>

namespace kedge {

struct ElementwiseKernels {
  /// y = x / sqrt(mean(x^2) + eps) * weight over [rows, size].
  void (*rmsnorm)(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t size, const float* weight,
                  float eps, float* y, std::int64_t ldy) noexcept;
  /// (a, b) of the halves of src [2 * half] -> dst (a cos - b sin, b cos + a sin). dst may be src.
  void (*rotate)(const float* src, float* dst, const float* cos, const float* sin, std::int64_t half) noexcept;
  void (*softmax)(float* x, std::int64_t size) noexcept;
  void (*sigmoid)(const float* x, std::int64_t count, float* out) noexcept;
  /// The maximum, and the sum of exp(x - maximum) in double.
  void (*exp_sum)(const float* x, std::int64_t size, float* maximum, double* sum) noexcept;
  /// By FfnActivation's value: h = act(gate) * up.
  void (*gated[4])(const float* gate, const float* up, std::int64_t size, float* h) noexcept;
};

extern const ElementwiseKernels elementwise_scalar, elementwise_avx2, elementwise_avx512;

}  // namespace kedge
