// Cholesky factorization and what stands on it: solve, triangular inverse, and the factor that GPTQ walks along.
//
//   cholesky             a = s^T s, s upper triangular with a positive diagonal (torch.linalg.cholesky(upper=True))
//   cholesky_solve       s^T s x = b
//   triangular_inverse   t = s^-1
//   gptq_factor          h^-1 = u^T u, u upper triangular
//
// Upper triangles, because rows of a row-major matrix then are the vectors of the work; the lower factor is s^T.
// gptq_factor makes no inverse of h: with J the reversal of the indices, J h J = s^T s gives h = r r^T with the upper
// triangular r = J s^T J, so u = r^-1 = J (s^-1)^T J. (GPTQ, arXiv 2210.17323, takes the Cholesky factor of h^-1.)
//
// All matrices are row-major fp32. Consistent arithmetic: one fp32 FMA chain per element (factor and forward solve: k
// ascending; inverse and backward solve: first the blocks of 128 rows below, then the rows below within the block, each
// ascending), then one IEEE division or square root. Threads, ISA and right-hand sides change no bit.
#pragma once

#include <cstdint>

#include "base/exec.h"

namespace kedge {

/// In place. Reads the upper triangle of a [n, n]; leaves s there and zeros below.
/// False where a is not positive definite in fp32 (a pivot is not a positive finite number); a is undefined then.
[[nodiscard]] bool cholesky(const ExecContext& ctx, Isa isa, std::int64_t n, float* a, std::int64_t lda);
/// b [n, m] becomes x. Reads the upper triangle of s.
void cholesky_solve(const ExecContext& ctx, Isa isa, std::int64_t n, const float* s, std::int64_t lds, float* b,
                    std::int64_t ldb, std::int64_t m);
/// t [n, n] is written whole, zeros below the diagonal; it must not overlap s.
void triangular_inverse(const ExecContext& ctx, Isa isa, std::int64_t n, const float* s, std::int64_t lds, float* t,
                        std::int64_t ldt);
/// In place, as cholesky. Scratch: n^2 floats.
[[nodiscard]] bool gptq_factor(const ExecContext& ctx, Isa isa, std::int64_t n, float* h, std::int64_t ldh);

}  // namespace kedge
