#define KEDGE_FAKE_QUANT fake_quant_avx512
#include "kernels/fake_quant/impl.h"
