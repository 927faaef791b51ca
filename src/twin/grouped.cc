#include "twin/grouped.h"

#include <algorithm>
#include <numeric>

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/check.h"

namespace kedge::twin {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Calls run(expert, first row, rows) for the experts that have rows. On CPUs the threads share the experts, by rows:
/// a product of one expert is too small to be worth two threads. Below autograd, which a worker thread has on.
template <class F>
void for_each_expert(const std::vector<std::int64_t>& counts, bool on_cpu, F&& run) {
  std::vector<std::int64_t> first(counts.size() + 1);
  std::partial_sum(counts.begin(), counts.end(), first.begin() + 1);
  const std::int64_t shares = on_cpu ? at::get_num_threads() : 1;
  const auto share_of = [&](std::size_t e) {  // of an expert's middle row
    return shares * (first[e] + first[e + 1]) / std::max<std::int64_t>(2 * first.back(), 1);
  };
  at::parallel_for(0, shares, 1, [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (std::size_t e = 0; e < counts.size(); ++e) {
      const std::int64_t share = share_of(e);
      if (counts[e] > 0 && share >= begin && share < end) run(static_cast<std::int64_t>(e), first[e], counts[e]);
    }
  });
}

struct GroupedLinear : Function<GroupedLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::vector<std::int64_t>& counts) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["counts"] = counts;
    Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
    for_each_expert(counts, x.is_cpu(), [&](std::int64_t e, std::int64_t first, std::int64_t rows) {
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
    const bool in_place = ctx->needs_input_grad(1) && weight.is_leaf() && weight.grad().defined();
    if (in_place) {
      dweight = weight.grad();
    } else if (ctx->needs_input_grad(1)) {
      dweight = at::empty_like(weight);
    }
    for_each_expert(counts, x.is_cpu(), [&](std::int64_t e, std::int64_t first, std::int64_t rows) {
      const Tensor part = dy.narrow(0, first, rows);
      if (dx.defined()) {
        Tensor out = dx.narrow(0, first, rows);
        at::mm_out(out, part, weight.select(0, e));
      }
      if (dweight.defined()) {
        Tensor out = dweight.select(0, e);
        at::addmm_out(out, out, part.t(), x.narrow(0, first, rows), /*beta=*/in_place ? 1 : 0);
      }
    });
    for (std::size_t e = 0; dweight.defined() && !in_place && e < counts.size(); ++e) {
      if (counts[e] == 0) dweight.select(0, static_cast<std::int64_t>(e)).zero_();
    }
    return {dx, in_place ? Tensor() : dweight, Tensor()};
  }
};

}  // namespace

Tensor grouped_linear(const Tensor& x, const Tensor& weight, const std::vector<std::int64_t>& counts) {
  KEDGE_CHECK(weight.dim() == 3 && static_cast<std::int64_t>(counts.size()) == weight.size(0) &&
              x.size(-1) == weight.size(2));
  return GroupedLinear::apply(x.contiguous(), weight, counts);
}

}  // namespace kedge::twin
