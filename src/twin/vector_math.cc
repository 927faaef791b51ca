#include "twin/vector_math.h"

#include "twin/tensor.h"

namespace kedge::twin {

void resolve_vector_math() {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Tensor x = at::full({1}, 0.5, type);
    // The list of aten/src/ATen/cpu/vml.h.
    x.acos(), x.asin(), x.atan(), x.cos(), x.erf(), x.erfc(), x.erfinv(), x.exp();
    x.log(), x.log10(), x.log2(), x.sin(), x.sqrt(), x.tan(), x.tanh(), x.trunc();
  }
}

}  // namespace kedge::twin
