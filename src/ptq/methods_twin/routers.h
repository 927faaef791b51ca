// The routers that an objective has in view, and what they said on the original path.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "ptq/layers/layer.h"
#include "twin/block.h"
#include "twin/parameters.h"

namespace kedge {

/// From a layer's output to the routing of the next MoE layer, by the original's weights: layers in between whole, of
/// the MoE layer what stands before its experts.
class NextRouter {
 public:
  /// nullopt: no MoE layer follows.
  static std::optional<NextRouter> find(const LayerInput& input, const twin::Options& options);

  int layer() const noexcept { return layers_.back().layer(); }
  /// h: the output of the layer under tuning [B, T, H].
  twin::Routing route(const at::Tensor& h);
  at::Tensor selection_bias() const;  ///< undefined without one

 private:
  std::vector<twin::Layer> layers_;
  twin::Parameters parameters_;
};

/// "model.layers.<layer>.mlp.gate.e_score_correction_bias" of a MoE layer.
std::string selection_bias_name(int layer);

/// The logits of one router on the original path, sequence by sequence.
class RouterTargets {
 public:
  /// bias: the selection bias, or undefined.
  RouterTargets(const RouterSpec& spec, at::Tensor bias, std::int64_t sequences, std::int64_t seqlen);

  /// Routing of sequences [first, first + B) that have B * T tokens.
  void set(std::int64_t first, const twin::Routing& routing);
  /// After the last set().
  double mean_margin() const noexcept { return margin_count_ > 0 ? margin_sum_ / double(margin_count_) : 0; }
  const RouterSpec& spec() const noexcept { return spec_; }
  /// Of these sequences, one after the other, on the device of the bias or `like`.
  twin::Routing at(std::span<const std::int64_t> sequences, const at::Tensor& like) const;

 private:
  RouterSpec spec_;
  at::Tensor bias_;
  at::Tensor logits_;  ///< [S, T, E] on the host
  double margin_sum_ = 0;
  std::int64_t margin_count_ = 0;
};

}  // namespace kedge
