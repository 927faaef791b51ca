#include "kernels/reduce/reduce.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  const ReduceKernels* kernels;
};

constexpr Row kRows[] = {
    {Isa::avx512, &reduce_avx512},
    {Isa::avx2, &reduce_avx2},
    {Isa::scalar, &reduce_scalar},
};

}  // namespace

const ReduceKernels& reduce_kernels(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return *row.kernels;
  }
  return reduce_scalar;
}

}  // namespace kedge
