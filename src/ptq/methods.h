// Post-training quantization methods: a table, one file per row (methods/*.cc).
//
// A method gives codes, scales and zeros; never floats that are rounded again later.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "quant/quant_tensor.h"

namespace kedge {

/// What a method wants beside the weights.
enum class MethodNeeds { nothing, calibration, torch };

struct MethodInput {
  std::span<const float> weights;  ///< [rows, cols], finite
  std::int64_t rows = 0, cols = 0;
  QuantArgs args;
  DType scale_dtype = DType::bf16;
};

struct QuantMethod {
  const char* name;
  const char* summary;
  MethodNeeds needs;
  bool rows_independent;  ///< a row's codes depend on that row alone: a matrix may be given in slices of rows
  QuantTensor (*quantize)(const MethodInput& input);
};

std::span<const QuantMethod> quant_methods() noexcept;
/// Error(usage) lists the methods.
const QuantMethod& find_quant_method(std::string_view name);

}  // namespace kedge
