#define KEDGE_PRODUCT_TILE product_tile_avx2
#include "kernels/product/impl.h"
