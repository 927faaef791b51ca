#define KEDGE_ELEMENTWISE_KERNELS elementwise_avx2
#include "kernels/vec/elementwise_impl.h"
