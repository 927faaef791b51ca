// Rounding that keeps tokens with their experts: error feedback over inputs and outputs, without gradients.
//
// A linear W [N, K] reads x on the quantized path where it read x~ on the original's. Its weights first become
//   W* = W + (alpha W sum (x~ - x) x^T + sum d x^T) (H + lambda I)^-1,   H = sum x x^T, lambda = damping mean diag H
// which ridge regression gives for the original's output plus d; d (InputStatistics::residual) is a part of what the
// residual stream lost before this layer, for linears that write to it, else 0. (GPTAQ, arXiv 2504.02692, has the first
// part in closed form within its feedback.) Then kernels/gptq rounds W* on its full range, clipped row by row
// (ScaleMethod::row_search), columns by falling diagonal of H; for linears that write to the residual stream with the
// output factor of ptq/layers/output_metric.h, so that their errors avoid what later routers and the head read. The
// router refit follows.
#pragma once

#include "ptq/methods.h"

namespace kedge {

QuantTensor round_for_routing(const MethodInput& input);

}  // namespace kedge
