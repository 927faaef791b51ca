#include "kernels/softmax/softmax.h"

#include "kernels/vec/math.h"
#include "kernels/vec/table.h"

namespace kedge {

void softmax(float* x, std::int64_t rows, std::int64_t size, Isa isa) noexcept {
  const ElementwiseKernels& kernels = elementwise_kernels(isa);
  for (std::int64_t r = 0; r < rows; ++r) kernels.softmax(x + r * size, size);
}

void sigmoid(const float* x, std::int64_t count, float* out, Isa isa) noexcept {
  elementwise_kernels(isa).sigmoid(x, count, out);
}

double log_sum_exp(const float* x, std::int64_t size, Isa isa) noexcept {
  float maximum = 0;
  double sum = 0;
  elementwise_kernels(isa).exp_sum(x, size, &maximum, &sum);
  return static_cast<double>(maximum) + math::log(sum);
}

}  // namespace kedge
