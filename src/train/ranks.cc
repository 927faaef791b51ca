#include "train/ranks.h"

#include <cstdint>
#include <span>

#include "base/check.h"
#include "comm/sum.h"

namespace kedge::training {

void sum_over_ranks(Communicator& ranks, const at::Tensor& tensor) {
  if (ranks.size() == 1) return;
  KEDGE_CHECK(tensor.is_contiguous());
  const at::NoGradGuard no_gradients;
  const at::Tensor host = tensor.to(at::kCPU);
  const auto sum = [&]<class T>(T* first) {
    kedge::sum_over_ranks(&ranks, std::span<T>(first, static_cast<std::size_t>(host.numel())));
  };
  switch (host.scalar_type()) {
    case at::kFloat: sum(host.mutable_data_ptr<float>()); break;
    case at::kDouble: sum(host.mutable_data_ptr<double>()); break;
    case at::kLong: sum(host.mutable_data_ptr<std::int64_t>()); break;
    default: KEDGE_CHECK(!"a type that nobody sums");
  }
  if (!tensor.is_cpu()) tensor.copy_(host);
}

double sum_over_ranks(Communicator& ranks, double value) { return kedge::sum_over_ranks(&ranks, value); }

}  // namespace kedge::training
