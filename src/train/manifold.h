// Weights that stay on a manifold while they are trained (quant/manifold.h): an optimizer's step made a Riemannian one.
//
//   before the step   g <- P_W(g)                the optimizer's moments see tangent vectors alone
//   after it          W' = R(W + P_W(u))         u: the step that the optimizer took in the space around
// P_W projects to the tangent space at W:
//   sphere rows       P(u)_i = u_i - (u_i . w_i) w_i
//   Stiefel           P(U) = U - sym(U W^T) W,   W W^T = I
// Weight decay is normal to both, so it does nothing. Moments are not transported: what of them is no longer tangent,
// the second projection takes away. Source: Absil, Mahony, Sepulchre, Optimization Algorithms on Matrix Manifolds
// (2008), sections 3.5.7 and 4.1; Becigneul, Ganea, Riemannian Adaptive Optimization Methods, arXiv 1810.00760.
#pragma once

#include <vector>

#include "quant/manifold.h"
#include "train/weights.h"

namespace kedge::training {

class ManifoldWeights {
 public:
  /// Those that spec puts on a manifold: the experts' stacks, the encoders. Both must outlive this.
  ManifoldWeights(const ModelSpec& spec, Weights& weights);

  /// Puts first values on their manifolds. Error(bad_file) as twin::retract.
  void place();
  /// Before the optimizer: gradients become tangent, values are remembered.
  void begin_step();
  /// After it.
  void end_step();
  bool empty() const noexcept { return points_.empty(); }

 private:
  struct Point {
    Manifold manifold = Manifold::none;
    at::Tensor value, gradient;  ///< [E, N, K], views
    at::Tensor before;
  };
  std::vector<Point> points_;
};

/// u minus what of it is normal to the manifold at w. [E, N, K] both; w on the manifold.
at::Tensor project_to_tangent(Manifold manifold, const at::Tensor& w, const at::Tensor& u);

}  // namespace kedge::training
