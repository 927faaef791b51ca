#define KEDGE_ELEMENTWISE_KERNELS elementwise_avx512
#include "kernels/vec/elementwise_impl.h"
