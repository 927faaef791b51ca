// The anchor and the deltas of given experts' matrices, by alternating minimisation.
//
//   min over A, D_e  of  sum_e sum_nk h_ek (W_e - A - D_e)^2_nk          h_ek: mean square of input k of expert e, or 1
// A step of A is the mean of W_e - D_e weighted by h, stored in the anchor's type; a step of D_e is round to nearest of
// W_e - A. It begins with D = 0 and ends when a step of both no longer lowers the sum; the best anchor is kept, and the
// deltas are then rounded against it once more, by the method (with error feedback where it has any).
// On the sphere A + D_e is fitted to W_e as without it, and rows are then scaled to the norms that they had.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "quant/anchor_delta.h"

namespace kedge {

struct AnchorFit {
  std::span<const float> weights;  ///< [E, N, K], finite
  std::int64_t experts = 0, rows = 0, cols = 0;
  AnchorDeltaArgs args;               ///< manifold: none or sphere
  std::span<const float> importance;  ///< h [E, K], not negative; empty: 1
  ScaleMethod scale_search = ScaleMethod::minmax;
  /// The last rounding of W_e - A; delta and anchor [N, K].
  std::function<QuantTensor(std::int64_t expert, std::span<const float> delta, std::span<const float> anchor)> round;
  bool round_in_parallel = false;  ///< round() may run for several experts at once
};

struct FittedAnchor {
  AnchorDelta stack;
  int steps = 0;      ///< of A that were taken, the first mean included
  double shared = 0;  ///< of sum h W^2, the share that the anchor alone takes away: 1 - sum h (W - A)^2 / sum h W^2
};

/// `where` names the stack. The same bits with any number of threads. Error(bad_file): rows of zeros on the sphere, an
/// anchor beyond the range of its type.
FittedAnchor fit_anchor(const AnchorFit& fit, ThreadPool& threads, const std::string& where);

}  // namespace kedge
