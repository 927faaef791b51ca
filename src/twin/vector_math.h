// The vector functions of libtorch's BLAS library, made ready.
#pragma once

namespace kedge::twin {

/// Calls each function that ATen hands to MKL's vector library once, from this thread alone. MKL picks a function's code
/// at its first call; where several threads make that call together, one of them may get other code of up to thousands of
/// ulps' error, so that rare runs differ (pytorch issue 188792; oneMKL before 2025.0). Call it before any other work.
void resolve_vector_math();

}  // namespace kedge::twin
