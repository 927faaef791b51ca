#define KEDGE_ELEMENTWISE_KERNELS elementwise_scalar
#include "kernels/vec/elementwise_impl.h"
