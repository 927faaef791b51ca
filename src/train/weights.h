// The weights under training: leaves of the graph, views of a few flat tensors.
//
// All experts of a layer are one leaf per projection (twin/options.h, stacked_experts). The leaves with the same update
// rule lie one after another in one flat tensor, and so do their gradients: an optimizer's step, a norm, a sum over
// ranks is one call. The selection bias is no leaf; the trainer moves it (train/router_losses.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/spec.h"
#include "twin/parameters.h"

namespace kedge::training {

/// How a weight is moved: orthogonalized momentum; AdamW with weight decay; AdamW without (norms, biases).
enum class UpdateRule { muon, decayed, plain };
inline constexpr std::array kUpdateRules = {UpdateRule::muon, UpdateRule::decayed, UpdateRule::plain};

struct TrainedWeight {
  std::string name;                  ///< canonical, or the stacked name of all experts
  std::vector<std::string> members;  ///< canonical names: itself, or each expert's
  Shape shape;                       ///< [out, in], [size], or [E, out, in]
  UpdateRule rule = UpdateRule::decayed;
  int layer = -1;
  at::Tensor value;         ///< fp32 leaf; its gradient is a view of the group's
  std::int64_t offset = 0;  ///< in the group
};

/// All weights of one rule, fp32.
struct WeightGroup {
  at::Tensor value, gradient;  ///< [elements]; undefined when there is none
};

class Weights {
 public:
  /// Copies the first values, by canonical names. muon: the layers' matrices go by that rule, routers aside.
  Weights(const ModelSpec& spec, const twin::Parameters& first, bool muon, const at::Device& device);

  std::vector<TrainedWeight>& trained() noexcept { return trained_; }
  const std::vector<TrainedWeight>& trained() const noexcept { return trained_; }
  WeightGroup& group(UpdateRule rule) noexcept { return groups_[static_cast<std::size_t>(rule)]; }
  /// "model.layers.1.mlp.gate.e_score_correction_bias" -> [E]; defined for layers that have one.
  at::Tensor selection_bias(int layer) const;
  /// For twin::Model: leaves and selection biases, under stacked names.
  const twin::Parameters& parameters() const noexcept { return parameters_; }
  /// The value of a canonical name; a view.
  at::Tensor value(const std::string& canonical) const;

  void clear_gradients();
  std::int64_t elements() const noexcept;

 private:
  std::vector<TrainedWeight> trained_;
  std::array<WeightGroup, kUpdateRules.size()> groups_;
  twin::Parameters parameters_;
};

}  // namespace kedge::training
