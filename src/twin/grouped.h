// The same matrix product for each expert on its own rows, one node of the graph for all experts.
//
//   y_p = W_e x_p   for the rows p of expert e
//
// x: [P, in], sorted by expert, counts[e] rows each; weight: [E, out, in]; y: [P, out]. An expert without rows gets a
// gradient of zeros. Once differentiable. A weight that is a leaf and has a gradient gets the products added to it in
// place: for backward(), which would add them, not for gradients that are asked for by themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "twin/tensor.h"

namespace kedge::twin {

Tensor grouped_linear(const Tensor& x, const Tensor& weight, const std::vector<std::int64_t>& counts);

}  // namespace kedge::twin
