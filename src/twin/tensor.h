// libtorch's tensor and the operators that this folder uses, operator by operator.
//
// Precompiled for the folders that need libtorch (cmake/KedgeFloors.cmake), so kept small: one header per operator
// instead of torch/torch.h, which takes a unit four times as long and a precompiled header of 900 MB. at:: functions
// differentiate as torch:: ones do; only factories differ (no requires_grad option: set_requires_grad).
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace kedge::twin {

/// In this namespace; host memory is kedge::Tensor.
using Tensor = at::Tensor;

}  // namespace kedge::twin
