// Masked diffusion as a training objective (LLaDA, arXiv 2502.09992, eq. 3; MDLM, arXiv 2406.07524).
//
// Of a sequence of T tokens each is masked with probability t, t uniform in (0, 1];
//   loss = mean over sequences of 1 / (t T) sum over masked i of -ln p(x_i | the sequence with its masks)
// which bounds the negative log-likelihood per token from above.
#pragma once

#include <cstdint>

#include "twin/tensor.h"

namespace kedge::training {

struct MaskedBatch {
  at::Tensor inputs;   ///< [B, T] int64: ids, or the mask's
  at::Tensor weights;  ///< [B, T] fp32: 1 / (t T) where there is a mask, else 0
};

/// ids: [B, T] int64 on the host. Row r's masks come from (seed, first_row + r) alone.
MaskedBatch mask_tokens(const at::Tensor& ids, std::int64_t mask_token_id, std::uint64_t seed, std::int64_t first_row);

/// Sum over all of weights * -ln p(ids): B times the loss. logits: [B, T, V].
at::Tensor masked_loss(const at::Tensor& logits, const at::Tensor& ids, const at::Tensor& weights);

}  // namespace kedge::training
