#include "ptq/methods_twin/fake_quant_ops.h"

#include <ATen/ops/where.h>

namespace kedge {
namespace {

at::ScalarType torch_type(DType dtype) {
  return dtype == DType::f16 ? at::kHalf : dtype == DType::bf16 ? at::kBFloat16 : at::kFloat;
}

/// All [G, 1].
struct Grid {
  at::Tensor low, high;  ///< alpha min, beta max
  at::Tensor exact, scale, zero;
  at::Tensor held;  ///< bool
};

Grid make_grid(const FakeQuantTensors& m) {
  Grid grid;
  grid.low = (m.alpha * m.min).unsqueeze(1);
  grid.high = (m.beta * m.max).unsqueeze(1);
  if (m.args.symmetric) {
    grid.exact = at::where(grid.high < -grid.low, -grid.low, -grid.high) / m.args.mid_code();
  } else {
    grid.exact = (grid.high - grid.low) / m.args.max_code();
  }
  const auto type = torch_type(m.scale_dtype);
  const at::Tensor least =
      at::full({1}, m.scale_dtype == DType::f32 ? 1e-8 : 1e-5, grid.exact.options()).to(type).to(at::kFloat);
  const at::Tensor wanted = m.factor.defined() ? m.factor.unsqueeze(1) * grid.exact : grid.exact;
  const at::Tensor rounded = wanted.to(type).to(at::kFloat);
  grid.held = rounded.abs() < least;
  grid.scale = at::where(grid.held, at::where(rounded < 0, -least, least), rounded);
  grid.zero = m.args.symmetric ? at::full_like(grid.scale, m.args.mid_code())
                               : (-grid.low / grid.scale).round().clamp(0, m.args.max_code());
  return grid;
}

/// round(w / s + V).
at::Tensor rounded_codes(const FakeQuantTensors& m, const at::Tensor& quotient) {
  return (m.rounding.defined() ? quotient + m.rounding : quotient).round();
}

at::Tensor limited(const FakeQuantTensors& m, const Grid& grid, const at::Tensor& codes) {
  return codes.maximum(-grid.zero).minimum(m.args.max_code() - grid.zero);
}

void step(at::Tensor& value, const at::Tensor& gradient, double lr, double low, double high) {
  value.sub_(gradient.sign(), lr).clamp_(low, high);
}

}  // namespace

at::Tensor fake_quantize(const FakeQuantTensors& m) {
  const at::NoGradGuard no_graph;
  const Grid grid = make_grid(m);
  return limited(m, grid, rounded_codes(m, m.weights / grid.scale)) * grid.scale;
}

void step_fake_quantization(FakeQuantTensors& m, const at::Tensor& gradient, double lr) {
  const at::NoGradGuard no_graph;
  const Grid grid = make_grid(m);
  const at::Tensor quotient = m.weights / grid.scale, rounded = rounded_codes(m, quotient);
  const at::Tensor codes = limited(m, grid, rounded);
  const at::Tensor inside = at::where(codes == rounded, gradient, at::zeros({}, gradient.options()));
  const at::Tensor outside = (gradient - inside).sum(1);
  at::Tensor by_scale = (gradient * codes).sum(1) - (inside * quotient).sum(1);
  if (!m.args.symmetric) by_scale = by_scale - outside * (grid.low / grid.scale).squeeze(1);
  by_scale = by_scale.masked_fill(grid.held.squeeze(1), 0);
  const at::Tensor by_exact = m.factor.defined() ? by_scale * m.factor : by_scale;
  at::Tensor by_alpha, by_beta;
  if (m.args.symmetric) {
    const at::Tensor low = -grid.low.squeeze(1), high = grid.high.squeeze(1);
    const at::Tensor signed_by = at::where(high < low, by_exact, -by_exact);
    by_alpha = (signed_by * -m.min).masked_fill(high > low, 0);
    by_beta = (signed_by * m.max).masked_fill(high < low, 0);
  } else {
    const at::Tensor per_step = by_exact / m.args.max_code();
    by_alpha = per_step * -m.min + outside * m.min;
    by_beta = per_step * m.max;
  }
  if (m.rounding.defined()) step(m.rounding, inside * grid.scale.sign(), lr, -0.5, 0.5);
  step(m.alpha, by_alpha, lr, 0, 1);
  step(m.beta, by_beta, lr, 0, 1);
  if (m.factor.defined()) step(m.factor, by_scale * grid.exact.squeeze(1), lr, 0.5, 2);
}

}  // namespace kedge
