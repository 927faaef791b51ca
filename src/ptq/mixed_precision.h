// Mixed precision: bits per unit of the model, so that the whole stays within a mean number of bits per weight.
//
// A unit is the attention of a layer, its dense MLP, its shared expert, its experts together, or one expert. The widths
// are 2, 3, 4 and 8 bits with the recipe's group and symmetry. Matrices that an override matches are no part of a unit;
// their bits count.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kedge/quantize.h"
#include "quant/scheme.h"

namespace kedge {

inline constexpr int kMixedWidths[] = {2, 3, 4, 8};

/// What shares its bits: the experts of all layers, of a layer, or of one expert.
enum class BitsPer { model, layer, expert };
/// What a unit's error is weighted by (ptq/sensitivity.h).
enum class Sensitivity { error, kld, routing, both };
BitsPer parse_bits_per(std::string_view name);         ///< "model", "layer", "expert"; Error(usage)
Sensitivity parse_sensitivity(std::string_view name);  ///< "error", "kld", "routing", "both"; Error(usage)
const char* bits_per_name(BitsPer per) noexcept;
const char* sensitivity_name(Sensitivity sensitivity) noexcept;

struct MixedPrecision {
  double target_bits = 0;  ///< bits per weight of the quantized matrices (quant/scheme.h); 0: one scheme for all
  BitsPer per = BitsPer::layer;
  Sensitivity sensitivity = Sensitivity::both;
  bool enabled() const noexcept { return target_bits > 0; }
};

struct Allocation {
  std::map<std::string, QuantArgs, std::less<>> args;  ///< by the module's name in the file
  std::vector<QuantizeAllocation> rows;
  double bits_per_weight = 0;
};

}  // namespace kedge
