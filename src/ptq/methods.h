// Post-training quantization methods: a table, one file per row (methods/*.cc).
//
// A method gives codes, scales and zeros; never floats that are rounded again later. Methods that tune whole layers by
// gradients (needs torch) live in methods_twin/ and come through LayerTuner (ptq/layers/layer.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/exec.h"
#include "ptq/recipe.h"
#include "ptq/statistics.h"
#include "quant/quant_tensor.h"

namespace kedge {

/// What a method wants beside the weights.
enum class MethodNeeds { nothing, calibration, torch };

struct MethodInput {
  std::span<const float> weights;  ///< [rows, cols], finite
  std::int64_t rows = 0, cols = 0;
  QuantArgs args;
  DType scale_dtype = DType::bf16;
  const InputStatistics* inputs = nullptr;     ///< of a method that needs calibration; no tokens: weights alone count
  const MethodParameters* parameters = nullptr;
  const ExecContext* ctx = nullptr;            ///< of a method that needs calibration
  Isa isa = Isa::scalar;
  const float* output_factor = nullptr;  ///< L [rows, rows] of ptq/layers/output_metric.h; null: outputs count alike
  std::span<const float> anchor = {};  ///< [rows, cols]: weights are a delta on it; empty: they are the matrix itself
};

struct BlockFold;   // ptq/layers/fold.h
struct FoldReport;

struct QuantMethod {
  const char* name;
  const char* summary;
  MethodNeeds needs;
  bool rows_independent;  ///< a row's codes depend on that row alone: a matrix may be given in slices of rows
  bool asymmetric;        ///< wants InputStatistics::cross
  QuantTensor (*quantize)(const MethodInput& input);  ///< null: a LayerTuner's method
  /// Changes the block to an equal one before anything of it is quantized; null: it stays as it is.
  std::vector<FoldReport> (*fold)(const BlockFold& block) = nullptr;
  bool shaped = false;  ///< wants InputStatistics::residual and MethodInput::output_factor
  bool anchored = false;  ///< rounds deltas on an anchor too
  bool feeds_back = false;  ///< error feedback by kernels/gptq, which can try several scales (ScaleMethod::row_search)
};

std::span<const QuantMethod> quant_methods() noexcept;
/// Error(usage) lists the methods.
const QuantMethod& find_quant_method(std::string_view name);

}  // namespace kedge
