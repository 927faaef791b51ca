#define KEDGE_ATTENTION_TILE attention_tile_avx512
#include "kernels/attention/impl.h"
