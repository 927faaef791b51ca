#include "train/masking.h"

#include <ATen/ops/cross_entropy_loss.h>

#include "base/rng.h"

namespace kedge::training {

MaskedBatch mask_tokens(const at::Tensor& ids, std::int64_t mask_token_id, std::uint64_t seed, std::int64_t first_row) {
  MaskedBatch out{ids.contiguous().clone(), at::zeros(ids.sizes(), at::kFloat)};
  const std::int64_t rows = ids.size(0), length = ids.size(1);
  auto* inputs = out.inputs.mutable_data_ptr<std::int64_t>();
  auto* weights = out.weights.mutable_data_ptr<float>();
  for (std::int64_t r = 0; r < rows; ++r) {
    // Neighbouring rows start far apart.
    Rng rng(Rng(seed).next() ^ (static_cast<std::uint64_t>(first_row + r) * 0x9E3779B97F4A7C15u));
    const double t = 1.0 - rng.uniform();  // (0, 1]
    for (std::int64_t i = 0; i < length; ++i) {
      if (rng.uniform() >= t) continue;
      inputs[r * length + i] = mask_token_id;
      weights[r * length + i] = static_cast<float>(1.0 / (t * static_cast<double>(length)));
    }
  }
  return out;
}

at::Tensor masked_loss(const at::Tensor& logits, const at::Tensor& ids, const at::Tensor& weights) {
  const at::Tensor each = at::cross_entropy_loss(logits.flatten(0, 1), ids.flatten().to(logits.device()), {},
                                                 at::Reduction::None);
  return (each * weights.flatten().to(logits.device())).sum();
}

}  // namespace kedge::training
