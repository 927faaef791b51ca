// The calibrated pass: layer by layer through the model, two paths side by side.
//
// The original path computes what the original computes; the quantized path computes with what has been quantized so
// far. One layer's weights are in memory at a time, and the hidden states between two layers (in memory, or in a file
// in cache_dir). Finished layers are kept in the store: after a kill they are replayed, not quantized again.
//
// Ranks sum what their own sequences give (comm/sum.h); from the sums each computes the same codes, on any ISA, so that
// no weights travel. Rank 0 alone writes to the store.
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
  Communicator* ranks = nullptr;    ///< each with data of its own, all with the same seed and store; null: one
};

/// What is to be said of a finished layer: its log (docs/formats/manifest.md) tells of experts that saw too few tokens.
void warn_of_layer(int layer, const nlohmann::ordered_json& log, const Recipe& recipe);
/// Returns the number of layers that the store had already.
int quantize_layers(const CalibratedRun& run, LayerStore& store);
/// This rank's sequences of a calibration set. Error(usage): fewer sequences than ranks.
CalibrationData share_of(const CalibrationData& data, const Communicator& ranks);

}  // namespace kedge
