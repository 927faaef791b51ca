#define KEDGE_PRODUCT_TILE product_tile_avx512
#include "kernels/product/impl.h"
