#include "ptq/layers/boundary.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/check.h"
#include "comm/sum.h"
#include "kernels/vec/math.h"

namespace kedge {
namespace {

// Keeps tau above zero where most margins are tiny.
constexpr double kTauFloor = 1e-3;

/// The k-th and the (k+1)-th largest.
std::pair<float, float> boundary(const float* scores, std::int64_t experts, std::int64_t k, std::vector<float>& sorted) {
  sorted.assign(scores, scores + experts);
  std::nth_element(sorted.begin(), sorted.begin() + k, sorted.end(), std::greater<>());
  const float next = sorted[static_cast<std::size_t>(k)];
  return {*std::min_element(sorted.begin(), sorted.begin() + k), next};
}

}  // namespace

Boundaries boundary_weights(ThreadPool& threads, const std::vector<float>& scores, std::int64_t experts, std::int64_t k,
                            double tau_margins, Communicator* ranks) {
  KEDGE_CHECK(k < experts);
  const auto rows = static_cast<std::int64_t>(scores.size()) / experts;
  Boundaries out;
  double margins = 0;
  std::int64_t counted = 0;
  std::vector<float> sorted;
  for (std::int64_t t = 0; t < rows; ++t) {
    const auto [kth, next] = boundary(scores.data() + t * experts, experts, k, sorted);
    if (!std::isfinite(next)) continue;  // all groups but those chosen are excluded
    margins += double(kth) - double(next);
    ++counted;
  }
  margins = sum_over_ranks(ranks, margins);
  counted = sum_over_ranks(ranks, counted);
  out.mean_margin = margins / double(std::max<std::int64_t>(counted, 1));
  const double tau = tau_margins * out.mean_margin + kTauFloor;
  out.weights.resize(scores.size());
  threads.parallel_for(rows, 256, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> own;
    for (std::int64_t t = begin; t < end; ++t) {
      const float* row = scores.data() + t * experts;
      const auto [kth, next] = boundary(row, experts, k, own);
      const float middle = std::isfinite(next) ? 0.5f * (kth + next) : kth;
      for (std::int64_t e = 0; e < experts; ++e) {
        // An expert of an excluded group (-inf) is as far from the boundary as can be.
        const float distance = std::isfinite(row[e]) ? std::fabs(row[e] - middle) : INFINITY;
        out.weights[static_cast<std::size_t>(t * experts + e)] = static_cast<float>(math::exp(-double(distance) / tau));
      }
    }
  });
  return out;
}

}  // namespace kedge
