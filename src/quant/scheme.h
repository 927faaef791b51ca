// Quantization arguments and named schemes, in compressed-tensors' words.
//
// A scheme's name follows one grammar: w<bits>a16[-g<group>|-channel][-asym], for example w4a16-g128-asym.
// Without a group part the group is 128, as in the presets of compressed-tensors 0.20 (W4A16, W8A16,
// W4A16_ASYM, ...), so that "W4A16", "w4a16" and "w4a16-g128" are one scheme. Names of any case are read; '_' is '-'.
// Two names more have int8 weights, one scale per output, and int8 inputs: w8a8-dynamic (the preset W8A8), w8a8-static.
//
// anchor-int<4|2>[-g32|-g64|-g128][-fp16|-bf16|-int8][-sphere]: the experts of a layer share an anchor of that type
// (fp16) and have deltas of those bits, in groups of 64 (quant/anchor_delta.h); with -sphere their rows are put back to
// their norms. Matrices that are no experts get the deltas' bits and group: anchor-int4-g64 has w4a16-g64 for them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "quant/manifold.h"
#include "tensor/dtype.h"

namespace kedge {

enum class QuantStrategy { channel, group };
const char* strategy_name(QuantStrategy strategy) noexcept;

struct QuantArgs {
  int num_bits = 4;  ///< 2, 3, 4 or 8; integers
  bool symmetric = true;
  QuantStrategy strategy = QuantStrategy::group;
  std::int64_t group_size = 128;  ///< along the input dimension; -1 for channel

  bool operator==(const QuantArgs&) const = default;
  int max_code() const noexcept { return (1 << num_bits) - 1; }
  int mid_code() const noexcept { return 1 << (num_bits - 1); }
  /// Elements per scale for a row of `cols` inputs.
  std::int64_t group_for(std::int64_t cols) const noexcept {
    return strategy == QuantStrategy::channel ? cols : group_size;
  }
};

/// Whether the inputs of quantized matrices are quantized to int8, symmetric, and where their scale comes from.
enum class InputActivations {
  none,
  dynamic_token,  ///< each row's own, found at run time
  static_tensor,  ///< one for all rows, found by calibration
};

/// What experts share; their deltas have the scheme's bits and group.
struct SharedAnchor {
  DType dtype = DType::f16;            ///< f16, bf16, or i8: 8 bits in the deltas' groups
  Manifold manifold = Manifold::none;  ///< none, or sphere: rows keep the norms that they had

  bool operator==(const SharedAnchor&) const = default;
};

struct QuantScheme {
  std::string name;  ///< canonical: "w4a16-g128"
  QuantArgs weights;
  InputActivations input_activations = InputActivations::none;
  std::optional<SharedAnchor> anchor = {};  ///< of the experts of each MoE layer
};

struct SchemePreset {
  const char* name;
  const char* canonical;
  const char* note;
};
std::span<const SchemePreset> scheme_presets() noexcept;

/// A preset or a name of the grammar. Error(usage) says what names look like.
QuantScheme parse_scheme(std::string_view name);
/// The same for where only weights are quantized: Error(unsupported) for schemes that quantize inputs.
QuantScheme parse_weight_scheme(std::string_view name);
/// The same for a matrix by itself: Error(unsupported) for schemes with a shared anchor too.
QuantScheme parse_matrix_scheme(std::string_view name);
/// Canonical, with the group part always spelled out: "w4a16-g128", "w8a16-channel".
std::string scheme_name(const QuantArgs& args);
/// The same for deltas on an anchor: "anchor-int4-g64", "anchor-int2-g32-int8-sphere".
std::string scheme_name(const QuantArgs& deltas, const SharedAnchor& anchor);
/// The same scheme for a row of `cols` inputs: channel where the group does not divide it.
QuantArgs args_for_cols(const QuantArgs& args, std::int64_t cols) noexcept;
/// Stored bits per weight of a [rows, cols] matrix: codes + scales of scale_bits + zero points.
double bits_per_weight(const QuantArgs& args, std::int64_t rows, std::int64_t cols, int scale_bits = 16) noexcept;

}  // namespace kedge
