#define KEDGE_ATTENTION_TILE attention_tile_scalar
#include "kernels/attention/impl.h"
