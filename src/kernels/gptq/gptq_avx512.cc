#define KEDGE_GPTQ_COLUMNS gptq_columns_avx512
#include "kernels/gptq/impl.h"
