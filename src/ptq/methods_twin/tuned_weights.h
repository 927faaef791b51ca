// The weights of a layer under tuning: those that are to be quantized as leaves of fake-quantized values, the others
// as they are.
//
// Gradients end at the leaves; the step by rounding, clipping and scale is kernels/fake_quant's (on a GPU:
// fake_quant_ops), so that nothing of a weight's quantization is recorded in a graph.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ptq/layers/layer.h"
#include "ptq/methods_twin/fake_quant_ops.h"
#include "twin/parameters.h"
#include "twin/pass.h"

namespace kedge {

class TunedWeights {
 public:
  /// Loads the layer from input.source. Error(bad_file): NaN or infinity in a weight.
  TunedWeights(const LayerInput& input, const twin::Options& options);

  bool empty() const noexcept { return parts_.empty(); }  ///< nothing to tune
  twin::WeightFunction original() const;                  ///< valid while this stays where it is
  twin::WeightFunction quantized() const;                 ///< the same; as refresh() left them
  /// Leaves anew from the parameters, without gradients.
  void refresh();
  /// Steps by the leaves' gradients; a matrix without one stays.
  void step(double lr);
  void keep();  ///< remembers the parameters
  /// Of what keep() remembered, by module.
  QuantTensor encode(const PlannedModule& module) const;
  /// The original's values on the host.
  std::vector<float> original_values(const PlannedModule& module) const;
  /// By name ("model.layers.0.mlp.experts.3.up_proj.weight"): the gradient that the last backward pass left.
  at::Tensor gradient(const std::string& name) const;

 private:
  /// A matrix among the groups of its bundle.
  struct Part {
    const PlannedModule* module;
    std::size_t bundle;
    std::int64_t first, groups;
    at::Tensor leaf;  ///< [rows, cols], a view of the bundle's values
  };
  /// Matrices that are quantized alike, group below group: on a GPU one operator serves them all. On a CPU each has its
  /// own, whose weights are the original's memory.
  struct Bundle {
    FakeQuantTensors state, best;
    at::Tensor values;  ///< [G, group], fake-quantized
    std::vector<std::size_t> parts;
  };
  void place(const PlannedModule& module);
  void fill(Bundle& bundle);
  const Part& part(const std::string& name) const;
  /// [G, group]; undefined where no part has one.
  at::Tensor gradient_of(const Bundle& bundle) const;

  const LayerInput& input_;
  twin::Options options_;
  twin::Parameters originals_;
  std::vector<Part> parts_;
  std::vector<Bundle> bundles_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace kedge
