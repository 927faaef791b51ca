// What errors in the residual stream cost: the routers that still read it, and the prediction.
//
// G [H, H] at a site of the stream, so that an error e there costs about e^T G e:
//   G = F + ratio (tr F / mean over layers of tr R) R
// F: mean over tokens of g g^T, g = J^T U^T (p - 1_y), with J the Jacobian of the final norm, U the head, p the
// original's prediction and y drawn from p: the Fisher information of the prediction.
// R: the same summed over the routers from there on, g = J^T W^T d with J the Jacobian of a MoE layer's norm, W its router
// and d_e = +-sqrt(w_te) / (mean margin): w (ptq/layers/boundary.h) counts tokens near the top-k boundary. d is
// centred over the experts of a softmax router, and times the sigmoid's slope for a sigmoid router. Signs are random;
// their covariance is the identity, so g g^T has the right mean.
//
// Along the stream alone: what layers between a site and its readers do to an error is left out, which needs no
// gradients. Our own; curvature of outputs in rounding: YAQA, arXiv 2505.22988.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/exec.h"
#include "comm/communicator.h"
#include "model/spec.h"
#include "nn/weight_source.h"
#include "ptq/layers/hidden_states.h"

namespace kedge {

class OutputMetric {
 public:
  struct Input {
    const ModelSpec& spec;
    const WeightSource& source;  ///< the original's
    LoadOptions options;
    ThreadPool& threads;
    double ratio = 0;
    std::uint64_t seed = 0;
    std::function<void(int layer)> layer_done;  ///< its weights will not be read again
    Communicator* ranks = nullptr;              ///< each with states of its own; null: one
  };
  /// One pass of the original. states: the embeddings [S, T, H]; afterwards the last layer's output.
  OutputMetric(const Input& input, HiddenStates& states);

  /// G [H, H], its upper triangle, for what is added to the stream before the router of `layer` reads it, or after that.
  std::vector<float> metric(int layer, bool after_router) const;
  /// L [H, H] with G + 0.01 (mean of G's diagonal) I = L D L^T, unit lower triangular (zeros above).
  std::vector<float> factor(const ExecContext& ctx, Isa isa, int layer, bool after_router) const;

 private:
  std::int64_t hidden_;
  double share_ = 0;                         ///< of R, by the ratio
  std::vector<std::vector<float>> routers_;  ///< [layers + 1] R of the routers from a layer on, upper triangles
  std::vector<float> prediction_;            ///< F, upper triangle
};

}  // namespace kedge
