#include "twin/grouped.h"

#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/check.h"

namespace kedge::twin {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Calls run(expert, first row, rows) for the experts that have rows.
template <class F>
void for_each_expert(const std::vector<std::int64_t>& counts, F&& run) {
  std::int64_t first = 0;
  for (std::size_t e = 0; e < counts.size(); first += counts[e++]) {
    if (counts[e] > 0) run(static_cast<std::int64_t>(e), first, counts[e]);
  }
}

struct GroupedLinear : Function<GroupedLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::vector<std::int64_t>& counts) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["counts"] = counts;
    Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
    for_each_expert(counts, [&](std::int64_t e, std::int64_t first, std::int64_t rows) {
      Tensor out = y.narrow(0, first, rows);
      at::mm_out(out, x.narrow(0, first, rows), weight.select(0, e).t());
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], dy = gradients[0].contiguous();
    const std::vector<std::int64_t> counts = ctx->saved_data["counts"].toIntVector();
    Tensor dx, dweight;
    if (ctx->needs_input_grad(0)) dx = at::empty_like(x);
    if (ctx->needs_input_grad(1)) dweight = at::empty_like(weight);
    for_each_expert(counts, [&](std::int64_t e, std::int64_t first, std::int64_t rows) {
      const Tensor part = dy.narrow(0, first, rows);
      if (dx.defined()) {
        Tensor out = dx.narrow(0, first, rows);
        at::mm_out(out, part, weight.select(0, e));
      }
      if (dweight.defined()) {
        Tensor out = dweight.select(0, e);
        at::mm_out(out, part.t(), x.narrow(0, first, rows));
      }
    });
    for (std::size_t e = 0; dweight.defined() && e < counts.size(); ++e) {
      if (counts[e] == 0) dweight.select(0, static_cast<std::int64_t>(e)).zero_();
    }
    return {dx, dweight, Tensor()};
  }
};

}  // namespace

Tensor grouped_linear(const Tensor& x, const Tensor& weight, const std::vector<std::int64_t>& counts) {
  KEDGE_CHECK(weight.dim() == 3 && static_cast<std::int64_t>(counts.size()) == weight.size(0) &&
              x.size(-1) == weight.size(2));
  return GroupedLinear::apply(x.contiguous(), weight, counts);
}

}  // namespace kedge::twin
