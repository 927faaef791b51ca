#include "kernels/gemm/simd_avx2.h"

#include "kernels/moe_ffn/combine_impl.h"

namespace kedge {

void combine_avx2(const CombineTask& t) noexcept { combine_rows(t); }

}  // namespace kedge
