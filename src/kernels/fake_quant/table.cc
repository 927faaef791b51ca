#include "kernels/fake_quant/row.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  const FakeQuantKernels& kernels;
};

const Row kRows[] = {
    {Isa::avx512, fake_quant_avx512},
    {Isa::avx2, fake_quant_avx2},
    {Isa::scalar, fake_quant_scalar},
};

}  // namespace

const FakeQuantKernels& fake_quant_kernels(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return row.kernels;
  }
  return fake_quant_scalar;
}

}  // namespace kedge
