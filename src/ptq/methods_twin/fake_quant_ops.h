// kernels/fake_quant on libtorch's tensors, operator by operator: for devices that the kernels do not reach.
#pragma once

#include "quant/scheme.h"
#include "tensor/dtype.h"
#include "twin/tensor.h"

namespace kedge {

/// FakeQuantMatrix (kernels/fake_quant/fake_quant.h), fp32, all on one device. rounding and factor may be undefined.
struct FakeQuantTensors {
  QuantArgs args;
  DType scale_dtype = DType::bf16;
  at::Tensor weights;              ///< [G, group]
  at::Tensor min, max;             ///< [G]
  at::Tensor rounding;             ///< [G, group]
  at::Tensor alpha, beta, factor;  ///< [G]
};

/// [G, group], without a graph.
at::Tensor fake_quantize(const FakeQuantTensors& matrix);
/// gradient: dL/dw^ [G, group].
void step_fake_quantization(FakeQuantTensors& matrix, const at::Tensor& gradient, double lr);

}  // namespace kedge
