#define KEDGE_GPTQ_COLUMNS gptq_columns_avx2
#include "kernels/gptq/impl.h"
