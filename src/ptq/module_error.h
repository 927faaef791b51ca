// How far a quantized matrix is from the one it stands for.
#pragma once

#include <optional>
#include <span>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "quant/quant_tensor.h"

namespace kedge {

/// Sums over a module's weights w and what they became v; in fp64, rows ascending, so independent of threads.
struct ModuleError {
  double squared_error = 0;   ///< sum (w - v)^2
  double squared_weight = 0;  ///< sum w^2
  double relative_rms() const noexcept;
};

/// weights: [rows, cols] of the quantized tensor.
ModuleError module_error(std::span<const float> weights, const QuantTensor& quantized);
/// The same for what was decoded already.
ModuleError module_error(std::span<const float> weights, std::span<const float> decoded);

/// As the bits of the sums: a resumed run prints what an undisturbed one prints.
nlohmann::ordered_json to_json(const ModuleError& error);
/// nullopt: not what to_json gives.
std::optional<ModuleError> module_error_from_json(const nlohmann::ordered_json& json);

/// Error(bad_file): NaN or infinity in the weight of `module`.
void check_finite(std::span<const float> weights, const std::string& module);

}  // namespace kedge
