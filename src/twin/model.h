// The differentiable twin of DecoderModel (model/decoder.h): the same ModelSpec, the same canonical names, whole
// sequences without a cache, gradients for every parameter.
#pragma once

#include <cstdint>
#include <vector>

#include "io/checkpoint.h"
#include "twin/block.h"

namespace kedge::twin {

struct Output {
  Tensor logits;                 ///< [B, T, V] in the options' dtype
  std::vector<Routing> routing;  ///< of each MoE layer
};

class Model {
 public:
  /// Plain or quantized (then its dequantized weights). Errors as DecoderModel::load.
  static Model load(const Checkpoint& checkpoint, const Options& options = {});
  static Model from_source(const ModelSpec& spec, const WeightSource& source, const Options& options = {});
  static Model random(const ModelSpec& spec, std::uint64_t seed, const Options& options = {});
  Model(ModelSpec spec, Parameters parameters, const Options& options);

  const ModelSpec& spec() const noexcept { return spec_; }
  const Options& options() const noexcept { return options_; }
  Parameters& parameters() noexcept { return parameters_; }
  const Parameters& parameters() const noexcept { return parameters_; }
  /// The model's own parameters as a function; valid while the model stays where it is.
  WeightFunction weights() const;

  /// ids: [B, T] int64. Error(usage) for ids outside the vocabulary.
  Output forward(const Tensor& ids, const Tensor& mask = {});
  Output forward(const Tensor& ids, const WeightFunction& weights, const Tensor& mask = {});

  // Its parts, for drivers that go layer by layer.
  Tensor embed(const Tensor& ids, const WeightFunction& weights) const;  ///< [B, T, H]
  std::vector<Layer>& layers() noexcept { return layers_; }
  Tensor head(const Tensor& h, const WeightFunction& weights) const;  ///< final norm and lm_head: [B, T, V]

 private:
  ModelSpec spec_;
  Options options_;
  Parameters parameters_;
  std::vector<Layer> layers_;
};

}  // namespace kedge::twin
