#define KEDGE_FAKE_QUANT fake_quant_scalar
#include "kernels/fake_quant/impl.h"
