// kedge train subspaces: do experts that are routed by reconstruction error take to one kind of token each? The kinds
// are known: vectors of a union of subspaces.
//
//   x = (B_s^T c + noise) / its norm     B_s [r, d] orthonormal, drawn per subspace; c normal; s uniform: x's owner
// The layer is that of a kedge_mcqsmoe config with expert_output "reconstruction"; there are as many subspaces as
// experts, of the bottleneck's dimension. It sees the vectors and no owner. Loss: the selected experts' mean error and
// the balance term of train/router_losses.h, by Adam, encoders on their manifold.
//   specialisation = share of held-out vectors whose first expert is their owner's, experts matched to owners one to
//   one so that it is largest; by chance 1 / E. Before training it is that of random encoders.
// OUT/training.json: kedge.subspaces/1, docs/formats/training.md.
#pragma once

#include "kedge/train.h"

namespace kedge::training {

/// Reads of the options config, out, steps, batch_size, lr, balance_loss, reconstruction_loss, threads and the seeds.
/// Errors as train().
TrainReport train_subspaces(const TrainOptions& options, Communicator* ranks);

/// Largest sum of counts[owner][expert] over one-to-one matchings. counts: [n, n] row by row, n <= 16.
std::int64_t best_matching(const std::vector<std::int64_t>& counts, std::int64_t n);

}  // namespace kedge::training
