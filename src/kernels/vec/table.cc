#include "kernels/vec/table.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  const ElementwiseKernels* kernels;
};

constexpr Row kRows[] = {
    {Isa::avx512, &elementwise_avx512},
    {Isa::avx2, &elementwise_avx2},
    {Isa::scalar, &elementwise_scalar},
};

}  // namespace

const ElementwiseKernels& elementwise_kernels(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return *row.kernels;
  }
  return elementwise_scalar;
}

}  // namespace kedge
