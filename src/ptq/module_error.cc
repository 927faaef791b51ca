#include "ptq/module_error.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {

double ModuleError::relative_rms() const noexcept {
  return squared_weight > 0 ? std::sqrt(squared_error / squared_weight) : 0;
}

ModuleError module_error(std::span<const float> weights, const QuantTensor& quantized) {
  KEDGE_CHECK(static_cast<std::int64_t>(weights.size()) == quantized.rows * quantized.cols);
  ModuleError error;
  std::vector<float> row(static_cast<std::size_t>(quantized.cols));
  for (std::int64_t n = 0; n < quantized.rows; ++n) {
    dequantize_row(quantized, n, row.data());
    const float* w = weights.data() + n * quantized.cols;
    for (std::int64_t k = 0; k < quantized.cols; ++k) {
      const double difference = double(w[k]) - double(row[static_cast<std::size_t>(k)]);
      error.squared_error += difference * difference;
      error.squared_weight += double(w[k]) * double(w[k]);
    }
  }
  return error;
}

ModuleError module_error(std::span<const float> weights, std::span<const float> decoded) {
  KEDGE_CHECK(weights.size() == decoded.size());
  ModuleError error;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double difference = double(weights[i]) - double(decoded[i]);
    error.squared_error += difference * difference;
    error.squared_weight += double(weights[i]) * double(weights[i]);
  }
  return error;
}

Json to_json(const ModuleError& error) {
  return {std::bit_cast<std::uint64_t>(error.squared_error), std::bit_cast<std::uint64_t>(error.squared_weight)};
}

std::optional<ModuleError> module_error_from_json(const Json& json) {
  if (!json.is_array() || json.size() != 2 || !json[0].is_number_unsigned() || !json[1].is_number_unsigned()) {
    return std::nullopt;
  }
  return ModuleError{std::bit_cast<double>(json[0].get<std::uint64_t>()),
                     std::bit_cast<double>(json[1].get<std::uint64_t>())};
}

void check_finite(std::span<const float> weights, const std::string& module) {
  if (all_finite(weights)) return;
  throw Error(ErrorCode::bad_file, "the weight of " + module + " holds NaN or infinity", "finite numbers");
}

}  // namespace kedge
