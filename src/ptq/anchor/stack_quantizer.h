// The experts of one layer on shared anchors: alignment, fit, rounding by the recipe's method.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/exec.h"
#include "ptq/layers/layer.h"
#include "ptq/layers/overlay_source.h"
#include "ptq/statistics.h"

namespace kedge {

/// Aligns the experts of the layer where gate, up and down are all on anchors, into `aligned`, which stands for the
/// source from then on. Writes "alignment" to the log.
void align_layer(const LayerInput& input, const ExecContext& ctx, OverlaySource& aligned, nlohmann::ordered_json& log);

struct StackJob {
  std::vector<const PlannedModule*> modules;       ///< [E], by expert
  std::vector<const InputStatistics*> statistics;  ///< [E] of the method's calibration, or empty
  const float* output_factor = nullptr;            ///< MethodInput's
};

/// Quantizes one projection of all experts: what overlay holds of them becomes a stack there and in `out`. Writes
/// "anchors" and "modules" to the log.
void quantize_stack(const LayerInput& input, const ExecContext& ctx, const StackJob& job, OverlaySource& overlay,
                    LayerOutput& out, nlohmann::ordered_json& log);

}  // namespace kedge
