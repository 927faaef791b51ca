#include "twin/pairs.h"

#include <torch/csrc/autograd/custom_function.h>

namespace kedge::twin {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct GatherTokens : Function<GatherTokens> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& order, const Tensor& inverse,
                        std::int64_t top_k) {
    ctx->save_for_backward({inverse});
    ctx->saved_data["top_k"] = top_k;
    return x.index_select(0, order.div(top_k, "floor"));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor inverse = ctx->get_saved_variables()[0];
    const std::int64_t top_k = ctx->saved_data["top_k"].toInt();
    return {gradients[0].index_select(0, inverse).unflatten(0, {-1, top_k}).sum(1), Tensor(), Tensor(), Tensor()};
  }
};

struct RestoreSlots : Function<RestoreSlots> {
  static Tensor forward(AutogradContext* ctx, const Tensor& sorted, const Tensor& order, const Tensor& inverse) {
    ctx->save_for_backward({order});
    return sorted.index_select(0, inverse);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    return {gradients[0].index_select(0, ctx->get_saved_variables()[0]), Tensor(), Tensor()};
  }
};

}  // namespace

Pairs sort_pairs(const Tensor& ids, std::int64_t num_experts) {
  Pairs pairs;
  pairs.top_k = ids.size(1);
  const Tensor flat = ids.reshape({-1});
  pairs.order = std::get<1>(at::sort(flat, /*stable=*/true, /*dim=*/0, /*descending=*/false));
  pairs.inverse = at::empty_like(pairs.order);
  pairs.inverse.scatter_(0, pairs.order, at::arange(flat.size(0), flat.options()));
  const Tensor counts = at::bincount(flat, {}, num_experts).to(at::kCPU);
  const auto* first = counts.const_data_ptr<std::int64_t>();
  pairs.counts.assign(first, first + num_experts);
  return pairs;
}

Tensor gather_tokens(const Tensor& x, const Pairs& pairs) {
  return GatherTokens::apply(x, pairs.order, pairs.inverse, pairs.top_k);
}

Tensor restore_slots(const Tensor& sorted, const Pairs& pairs) {
  return RestoreSlots::apply(sorted, pairs.order, pairs.inverse).unflatten(0, {-1, pairs.top_k});
}

}  // namespace kedge::twin
