#include "kernels/gptq/block.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  GptqKernel kernel;
};

constexpr Row kRows[] = {
    {Isa::avx512, gptq_columns_avx512},
    {Isa::avx2, gptq_columns_avx2},
    {Isa::scalar, gptq_columns_scalar},
};

}  // namespace

GptqKernel gptq_kernel(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return row.kernel;
  }
  return gptq_columns_scalar;
}

}  // namespace kedge
