// The calibrated pass: layer by layer through the model, two paths side by side.
//
// The original path computes what the original computes; the quantized path computes with what has been quantized so
// far. One layer's weights are in memory at a time, and the hidden states between two layers (in memory, or in a file
// in cache_dir). Finished layers are kept in the store: after a kill they are replayed, not quantized again.
#pragma once

#include <filesystem>

#include "base/thread_pool.h"
#include "ptq/calibration_data.h"
#include "ptq/layers/layer.h"
#include "ptq/layers/layer_store.h"

namespace kedge {

struct CalibratedRun {
  const Checkpoint& checkpoint;
  const QuantPlan& plan;
  const Recipe& recipe;
  const CalibrationData& data;
  std::filesystem::path cache_dir;  ///< empty: hidden states stay in memory
  ThreadPool& threads;
  LayerTuner* tuner = nullptr;      ///< of a method that needs torch
};

/// What is to be said of a finished layer: its log (docs/formats/manifest.md) tells of experts that saw too few tokens.
void warn_of_layer(int layer, const nlohmann::ordered_json& log, const Recipe& recipe);
/// Returns the number of layers that the store had already.
int quantize_layers(const CalibratedRun& run, LayerStore& store);

}  // namespace kedge
