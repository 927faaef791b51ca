#include "kernels/gemm/simd_avx512.h"

#include "kernels/moe_ffn/combine_impl.h"

namespace kedge {

void combine_avx512(const CombineTask& t) noexcept { combine_rows(t); }

}  // namespace kedge
