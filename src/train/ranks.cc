#include "train/ranks.h"

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace kedge::training {

void sum_over_ranks(Communicator& ranks, const at::Tensor& tensor) {
  if (ranks.size() == 1) return;
  KEDGE_CHECK(tensor.is_contiguous());
  const at::NoGradGuard no_gradients;
  const at::Tensor host = tensor.to(at::kCPU);
  const std::size_t bytes = host.nbytes();
  const std::vector<std::string> all = ranks.gather({static_cast<const char*>(host.const_data_ptr()), bytes});
  at::Tensor sum = host;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    KEDGE_CHECK(all[rank].size() == bytes);
    at::Tensor part = at::empty_like(host);
    std::memcpy(part.mutable_data_ptr(), all[rank].data(), bytes);
    sum = rank == 0 ? part : sum.add_(part);
  }
  const std::string result = ranks.broadcast({static_cast<const char*>(sum.const_data_ptr()), bytes});
  KEDGE_CHECK(result.size() == bytes);
  at::Tensor out = at::empty_like(host);
  std::memcpy(out.mutable_data_ptr(), result.data(), bytes);
  tensor.copy_(out);
}

double sum_over_ranks(Communicator& ranks, double value) {
  const at::Tensor tensor = at::full({1}, value, at::kDouble);
  sum_over_ranks(ranks, tensor);
  return tensor.item<double>();
}

}  // namespace kedge::training
