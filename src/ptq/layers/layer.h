// One layer under calibrated quantization: what goes in, what comes out.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "model/spec.h"
#include "nn/weight_source.h"
#include "ptq/calibration_data.h"
#include "ptq/layers/hidden_states.h"
#include "ptq/plan.h"
#include "ptq/recipe.h"

namespace kedge {

class OutputMetric;  // ptq/layers/output_metric.h

struct LayerInput {
  const ModelSpec& spec;       ///< of the whole model
  int layer = 0;
  const WeightSource& source;  ///< the original's weights, canonical names
  std::vector<const PlannedModule*> modules;  ///< of this layer, in execution order; without args: kept
  const Recipe& recipe;
  LoadOptions options;         ///< consistent, fp32 activations
  ThreadPool& threads;
  std::map<std::string, DType, std::less<>> kept;  ///< the file's types of this layer's other tensors, canonical names
  const OutputMetric* metric = nullptr;            ///< of a method that is shaped
  /// Most that sums of products of inputs (H^2 per expert) take at once; where they need more, the layer's inputs are
  /// gone through more often. No bit depends on it.
  std::int64_t statistics_bytes = std::int64_t{2} << 30;
  Communicator* ranks = nullptr;  ///< each with sequences of its own, all with the same weights; null: one
};

struct LayerOutput {
  std::map<std::string, QuantTensor, std::less<>> weights;  ///< by canonical module
  std::map<std::string, std::shared_ptr<const AnchorDelta>, std::less<>> stacks;  ///< by stack_name()
  std::map<std::string, Tensor, std::less<>> replaced;      ///< by canonical tensor name, fp32, representable in the
                                                            ///< dtype that the file has for it
  std::string log = "{}";  ///< a JSON object for the manifest (docs/formats/manifest.md)
};

/// Tunes all matrices of a layer together (methods that need gradients).
class LayerTuner {
 public:
  virtual ~LayerTuner() = default;
  /// original, quantized: the layer's input on either path [S, T, H]; not changed.
  virtual LayerOutput tune(const LayerInput& input, const HiddenStates& original, const HiddenStates& quantized) = 0;
};

/// Makes tuners; kedge-torch has one.
class LayerTunerFactory {
 public:
  virtual ~LayerTunerFactory() = default;
  virtual std::unique_ptr<LayerTuner> make(const Recipe& recipe, const CalibrationData& data) = 0;
};

/// Quantizes a layer by the recipe and carries both paths' states from its input to its output. tuner: of a method
/// that needs torch, else null. done: the layer's result of an earlier run; then the states alone are carried.
LayerOutput quantize_layer(const LayerInput& input, HiddenStates& original, HiddenStates& quantized, LayerTuner* tuner);
void replay_layer(const LayerInput& input, const LayerOutput& done, HiddenStates& original, HiddenStates& quantized);

}  // namespace kedge
