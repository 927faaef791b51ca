#include "ptq/methods/gptq.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/cholesky/cholesky.h"
#include "kernels/gptq/gptq.h"
#include "kernels/gram/gram.h"

namespace kedge {
namespace {

constexpr double kMostDamping = 1.0;

using Matrix = std::vector<float>;  ///< [K, K]

void scale(Matrix& matrix, float factor) {
  for (float& value : matrix) value *= factor;
}

std::vector<float> diagonal(const Matrix& matrix, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = matrix[static_cast<std::size_t>(i * n + i)];
  return out;
}

using Factorize = bool (*)(const ExecContext& ctx, Isa isa, std::int64_t n, float* a, std::int64_t lda);

Matrix damped_factor(const MethodInput& in, const Matrix& hessian, Factorize factorize) {
  const std::int64_t n = in.cols;
  double mean = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += hessian[static_cast<std::size_t>(i * n + i)];
  mean /= double(n);
  // Inputs that are all zero have no Hessian to speak of: U = 1 is rounding to nearest.
  if (!(mean > 0)) mean = 1;
  for (double damping = in.parameters->damping; damping <= std::max(kMostDamping, in.parameters->damping);
       damping *= 10) {
    Matrix factor = hessian;
    for (std::int64_t i = 0; i < n; ++i) factor[static_cast<std::size_t>(i * n + i)] += static_cast<float>(damping * mean);
    if (factorize(*in.ctx, in.isa, n, factor.data(), n)) return factor;
  }
  throw Error(ErrorCode::bad_file, "the Hessian of a layer's inputs is not positive definite under any damping",
              "finite hidden states", "look at the model's weights and the calibration text");
}

QuantTensor run(const MethodInput& in, bool asymmetric) {
  KEDGE_CHECK(in.inputs != nullptr && in.parameters != nullptr && in.ctx != nullptr);
  const std::int64_t n = in.cols;
  GptqInput input{in.weights, in.rows, in.cols, in.args, in.scale_dtype};
  input.search.method = in.parameters->scale_search;
  if (in.inputs->tokens == 0) return quantize_rtn(in.weights, in.rows, n, in.args, in.scale_dtype, input.search);

  const float per_token = 2.0f / static_cast<float>(in.inputs->tokens);
  Matrix hessian = in.inputs->gram, cross = in.inputs->cross;
  scale(hessian, per_token);
  scale(cross, per_token);
  const std::vector<float> importance = diagonal(hessian, n);
  input.search.importance = importance;

  std::vector<std::int32_t> order;
  if (in.parameters->act_order) {
    order = descending_order(importance);
    input.order = order;
    mirror_upper(*in.ctx, n, hessian.data(), n);
    Matrix permuted(hessian.size());
    permute_symmetric(*in.ctx, order, hessian.data(), permuted.data());
    hessian = std::move(permuted);
    if (asymmetric) {
      Matrix permuted_cross(cross.size());
      permute_symmetric(*in.ctx, order, cross.data(), permuted_cross.data());
      cross = std::move(permuted_cross);
    }
  }
  const Matrix factor = damped_gptq_factor(in, hessian);
  input.factor = factor.data();
  Matrix correction;
  if (asymmetric) {
    correction.resize(cross.size());
    gptaq_asymmetric(*in.ctx, in.isa, n, cross.data(), factor.data(), static_cast<float>(in.parameters->gptaq_alpha),
                     correction.data());
    input.asymmetric = correction.data();
  }
  return gptq(*in.ctx, in.isa, input).tensor;
}

}  // namespace

std::vector<float> damped_cholesky(const MethodInput& input, const std::vector<float>& hessian) {
  return damped_factor(input, hessian, cholesky);
}
std::vector<float> damped_gptq_factor(const MethodInput& input, const std::vector<float>& hessian) {
  return damped_factor(input, hessian, gptq_factor);
}

QuantTensor gptq(const MethodInput& input) { return run(input, false); }
QuantTensor gptaq(const MethodInput& input) { return run(input, true); }

}  // namespace kedge
