#define KEDGE_ATTENTION_TILE attention_tile_avx2
#include "kernels/attention/impl.h"
