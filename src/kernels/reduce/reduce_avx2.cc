#define KEDGE_REDUCE_KERNELS reduce_avx2
#include "kernels/reduce/impl.h"
