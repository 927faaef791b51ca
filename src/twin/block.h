// One block of the twin: h + scale * mixer(norm(h)), as Block of model/decoder.h. Holds no weights: a pass brings a
// function that gives them, so that a tuner can put others in their place.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/spec.h"
#include "twin/options.h"
#include "twin/parameters.h"
#include "twin/pass.h"
#include "twin/rope.h"

namespace kedge::twin {

class Block {
 public:
  Block(const ModelSpec& spec, std::size_t block, const Options& options);

  int layer() const noexcept { return spec_.source_layer; }
  bool is_moe() const noexcept { return std::holds_alternative<Moe>(spec_.mixer); }
  const BlockSpec& spec() const noexcept { return spec_; }

  /// h: [B, T, H] in the options' dtype -> the same shape. Not from two threads at once (grows the table of angles).
  Tensor forward(const Tensor& h, const WeightFunction& weights, const Pass& pass = {});
  /// The routing of a MoE block on h [B, T, H], without its experts.
  Routing route(const Tensor& h, const WeightFunction& weights) const;

 private:
  BlockSpec spec_;
  double norm_eps_ = 0;
  Options options_;
  std::optional<RopeAngles> angles_;
};

/// All blocks of one transformer layer: what a tuner works on.
class Layer {
 public:
  Layer(const ModelSpec& spec, int layer, const Options& options);

  int layer() const noexcept { return layer_; }
  bool is_moe() const noexcept;
  std::vector<Block>& blocks() noexcept { return blocks_; }

  Tensor forward(const Tensor& h, const WeightFunction& weights, const Pass& pass = {});
  /// The layer up to its router and no further, on the layer's input h: what the routing of the next layer makes of
  /// this one's output. CHECKs is_moe().
  Routing route(const Tensor& h, const WeightFunction& weights, const Pass& pass = {});

 private:
  int layer_;
  std::vector<Block> blocks_;
};

}  // namespace kedge::twin
