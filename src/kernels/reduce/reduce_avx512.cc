#define KEDGE_REDUCE_KERNELS reduce_avx512
#include "kernels/reduce/impl.h"
