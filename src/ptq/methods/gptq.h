// GPTQ (arXiv 2210.17323) and GPTAQ (arXiv 2504.02692): rounding with error feedback along the Cholesky factor of the
// inputs' inverse Hessian (kernels/gptq). No gradients.
//
//   H = 2/N sum x x^T + damping * mean(diag) * I
// A column that no calibration token reaches (H_kk = 0) keeps only the damping: its weights are rounded to nearest. Where
// H is not positive definite in fp32 the damping is multiplied by ten, up to one mean of the diagonal.
// GPTAQ corrects for the difference between the original path's inputs and the quantized path's, at the strength
// gptaq_alpha: 1 is what its derivation says, its authors' code takes 0.25.
// Without any token: round to nearest.
#pragma once

#include <vector>

#include "ptq/methods.h"

namespace kedge {

/// Error(bad_file): no damping makes the Hessian positive definite (inputs that are not finite).
QuantTensor gptq(const MethodInput& input);
QuantTensor gptaq(const MethodInput& input);

/// Of a Hessian [K, K] (its upper triangle), damped as above, times any factor: s with H = s^T s, and U with
/// H^-1 = U^T U (kernels/cholesky). Errors as gptq.
std::vector<float> damped_cholesky(const MethodInput& input, const std::vector<float>& hessian);
std::vector<float> damped_gptq_factor(const MethodInput& input, const std::vector<float>& hessian);

}  // namespace kedge
