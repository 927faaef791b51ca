#define KEDGE_REDUCE_KERNELS reduce_scalar
#include "kernels/reduce/impl.h"
