#include "kernels/product/product.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;  ///< the least that the CPU must have
  ProductKernel kernel;
};

constexpr Row kRows[] = {
    {Isa::avx512, product_tile_avx512},
    {Isa::avx2, product_tile_avx2},
    {Isa::scalar, product_tile_scalar},
};

}  // namespace

ProductKernel product_kernel(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return row.kernel;
  }
  return product_tile_scalar;
}

}  // namespace kedge
