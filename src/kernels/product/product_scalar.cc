#define KEDGE_PRODUCT_TILE product_tile_scalar
#include "kernels/product/impl.h"
