#define KEDGE_CHOLESKY_KERNELS cholesky_scalar
#include "kernels/cholesky/impl.h"
