#define KEDGE_CHOLESKY_KERNELS cholesky_avx2
#include "kernels/cholesky/impl.h"
