#define KEDGE_GPTQ_COLUMNS gptq_columns_scalar
#include "kernels/gptq/impl.h"
