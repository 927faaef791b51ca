#include "ptq/methods/kedge.h"

#include <vector>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/cholesky/cholesky.h"
#include "kernels/gptq/gptq.h"
#include "kernels/gram/gram.h"
#include "kernels/product/product.h"
#include "ptq/methods/gptq.h"

namespace kedge {
namespace {

using Matrix = std::vector<float>;

/// alpha W cross + residual [N, K].
Matrix wanted_change(const MethodInput& in) {
  Matrix scaled(in.weights.begin(), in.weights.end());
  for (std::size_t i = 0; i < in.anchor.size(); ++i) scaled[i] += in.anchor[i];
  for (float& w : scaled) w *= static_cast<float>(in.parameters->gptaq_alpha);
  Matrix out = in.inputs->residual;
  out.resize(in.weights.size());
  ProductTile t;
  t.a = scaled.data();
  t.a_k = 1;
  t.a_i = in.cols;
  t.b = in.inputs->cross.data();
  t.b_k = in.cols;
  t.k = in.cols;
  t.m = in.rows;
  t.n = in.cols;
  t.c = out.data();
  t.ldc = in.cols;
  product(*in.ctx, in.isa, t);
  return out;
}

/// W + change (H + lambda I)^-1.
Matrix target(const MethodInput& in, const Matrix& hessian) {
  const Matrix change = wanted_change(in), s = damped_cholesky(in, hessian);
  Matrix x(change.size());  // [K, N]
  for (std::int64_t n = 0; n < in.rows; ++n) {
    for (std::int64_t k = 0; k < in.cols; ++k) x[static_cast<std::size_t>(k * in.rows + n)] = change[static_cast<std::size_t>(n * in.cols + k)];
  }
  cholesky_solve(*in.ctx, in.isa, in.cols, s.data(), in.cols, x.data(), in.rows, in.rows);
  Matrix out(in.weights.begin(), in.weights.end());
  for (std::int64_t n = 0; n < in.rows; ++n) {
    for (std::int64_t k = 0; k < in.cols; ++k) out[static_cast<std::size_t>(n * in.cols + k)] += x[static_cast<std::size_t>(k * in.rows + n)];
  }
  return out;
}

}  // namespace

QuantTensor round_for_routing(const MethodInput& in) {
  KEDGE_CHECK(in.inputs != nullptr && in.parameters != nullptr && in.ctx != nullptr);
  ScaleSearch search;
  search.method = in.parameters->scale_search;
  if (in.inputs->tokens == 0) return quantize_rtn(in.weights, in.rows, in.cols, in.args, in.scale_dtype, search);

  Matrix hessian = in.inputs->gram;
  mirror_upper(*in.ctx, in.cols, hessian.data(), in.cols);
  Matrix importance(static_cast<std::size_t>(in.cols));
  for (std::int64_t k = 0; k < in.cols; ++k) importance[static_cast<std::size_t>(k)] = hessian[static_cast<std::size_t>(k * in.cols + k)];
  search.importance = importance;
  const Matrix weights = target(in, hessian);
  const std::vector<std::int32_t> order = descending_order(importance);
  Matrix permuted(hessian.size());
  permute_symmetric(*in.ctx, order, hessian.data(), permuted.data());
  const Matrix factor = damped_gptq_factor(in, permuted);

  GptqInput input{weights, in.rows, in.cols, in.args, in.scale_dtype};
  input.scales_of = weights;
  input.factor = factor.data();
  input.order = order;
  input.output_factor = in.output_factor;
  input.search = search;
  return gptq(*in.ctx, in.isa, input).tensor;
}

}  // namespace kedge
