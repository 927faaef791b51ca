// How near tokens stand to the top-k boundary of each expert.
//
//   w_te = exp(-|s_te - b_t| / tau),  tau = tau_margins times the mean margin (plus a small floor)
// s: selection scores; b_t: the middle between the k-th and the (k+1)-th; margin: the difference of the two.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"

namespace kedge {

struct Boundaries {
  double mean_margin = 0;      ///< over the ranks' tokens that have a (k+1)-th expert left; 0: none has
  std::vector<float> weights;  ///< w [N, E]; 0 for experts of excluded groups
};

/// scores [rows, experts], -infinity for experts of excluded groups; k < experts.
Boundaries boundary_weights(ThreadPool& threads, const std::vector<float>& scores, std::int64_t experts, std::int64_t k,
                            double tau_margins, Communicator* ranks);

}  // namespace kedge
