// AdamW and Muon on the groups of train/weights.h.
//
// AdamW (arXiv 1711.05101; libtorch's fused step): m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
//   w <- w (1 - lr decay) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
// Muon (K. Jordan 2024, with the step length of arXiv 2502.16982): m <- mu m + (1 - mu) g, u = mu m + (1 - mu) g,
//   w <- w (1 - lr decay) - lr 0.2 sqrt(max(out, in)) NewtonSchulz5(u), each expert's matrix by itself. The step has
//   the root mean square of AdamW's, so one lr serves both.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "train/weights.h"

namespace kedge::training {

struct OptimizerSettings {
  double weight_decay = 0.1;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double momentum = 0.95;
};

class Optimizer {
 public:
  Optimizer(Weights& weights, const OptimizerSettings& settings);
  /// Moves the weights along their gradients, each divided by `gradient_scale` (and left so). step: from 1, for
  /// AdamW's correction of the first means.
  void step(double lr, std::int64_t step, double gradient_scale = 1);
  /// "<weight>.exp_avg", "<weight>.exp_avg_sq", "<weight>.momentum_buffer": views of the state, in the weights' shapes.
  std::vector<std::pair<std::string, at::Tensor>> state() const;

 private:
  void adamw(UpdateRule rule, double lr, std::int64_t step, double gradient_scale, double decay);
  void muon(double lr, double gradient_scale);

  Weights& weights_;
  OptimizerSettings settings_;
  struct Moments {
    at::Tensor first, second;
  };
  std::array<Moments, kUpdateRules.size()> moments_;
};

/// The nearest matrix with equal singular values, about: five Newton-Schulz steps X <- a X + b (X X') X + c (X X')^2 X
/// from X / |X|, whose singular values come out between 0.7 and 1.2. x: [n, out, in], each matrix by itself.
at::Tensor newton_schulz(const at::Tensor& x);

}  // namespace kedge::training
