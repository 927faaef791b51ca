#include "kernels/cholesky/block.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  const CholeskyKernels* kernels;
};

constexpr Row kRows[] = {
    {Isa::avx512, &cholesky_avx512},
    {Isa::avx2, &cholesky_avx2},
    {Isa::scalar, &cholesky_scalar},
};

}  // namespace

const CholeskyKernels& cholesky_kernels(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return *row.kernels;
  }
  return cholesky_scalar;
}

}  // namespace kedge
