#define KEDGE_CHOLESKY_KERNELS cholesky_avx512
#include "kernels/cholesky/impl.h"
