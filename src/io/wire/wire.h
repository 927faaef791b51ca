// File layouts of quantized checkpoints <-> QuantTensor. One file and one table row (formats.cc) per format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/safetensors.h"
#include "quant/anchor_delta.h"
#include "quant/quant_tensor.h"

namespace kedge {

/// Finds a tensor by full name; nullopt when the checkpoint lacks it.
class TensorLookup {
 public:
  virtual ~TensorLookup() = default;
  virtual std::optional<TensorView> find(std::string_view name) const = 0;
};

/// The tensors of one file, which must outlive this.
class FileLookup : public TensorLookup {
 public:
  explicit FileLookup(const SafetensorsFile& file) : file_(file) {}
  std::optional<TensorView> find(std::string_view name) const override {
    return file_.has(name) ? std::optional(file_.tensor(name)) : std::nullopt;
  }

 private:
  const SafetensorsFile& file_;
};

/// A checkpoint's quantization_config, understood.
class WireFormat {
 public:
  virtual ~WireFormat() = default;
  virtual const char* name() const noexcept = 0;  ///< "compressed-tensors/pack-quantized"
  /// Is the module stored in this format? (by its tensors)
  virtual bool has(const TensorLookup& tensors, std::string_view module) const = 0;
  virtual QuantArgs args(const TensorLookup& tensors, std::string_view module) const = 0;
  /// Validates shapes and dtypes; Error(bad_file).
  virtual QuantTensor read(const TensorLookup& tensors, std::string_view module) const = 0;
  virtual InputActivations input_activations() const noexcept { return InputActivations::none; }
  /// Matrices of all experts that share an anchor, by the stack's name ("model.layers.1.mlp.experts.up_proj"); nullopt:
  /// there is no such stack.
  virtual std::optional<StackShape> stack_shape(std::string_view) const { return std::nullopt; }
  /// Of a stack that there is. Error(bad_file), Error(mismatch).
  virtual AnchorDelta read_stack(const TensorLookup&, std::string_view) const { return {}; }
  /// The suffixes of a module's tensors (".weight_packed", ...).
  virtual std::span<const char* const> suffixes() const noexcept = 0;
};

/// quantization_config of config.json -> the format that reads it; Error(unsupported) names what was found and
/// lists the table. null when `config` has no quantization_config.
std::unique_ptr<WireFormat> make_wire_format(const nlohmann::ordered_json& config, const std::string& where);

namespace compressed_tensors {
/// Words of `values` [rows, cols] (unsigned, < 2^bits), LSB first along the last dimension, each row padded with zero
/// bits to whole words; odd widths cross words (32 values of 3 bits in 3 words), as compressed-tensors writes since
/// 3f01c782.
std::vector<std::int32_t> pack_codes(std::span<const std::uint8_t> values, std::int64_t rows, std::int64_t cols,
                                     int bits);
/// The tensors that hold a [rows, cols] weight under the module's name, in pack-quantized form.
std::vector<SafetensorsWriter::Entry> entries(std::string_view module, const QuantArgs& args, std::int64_t rows,
                                              std::int64_t cols, DType scale_dtype);
/// The bytes of one of these entries; suffix: ".weight_packed", ".weight_scale", ".weight_shape",
/// ".weight_zero_point".
std::vector<std::byte> serialize(const QuantTensor& q, std::string_view suffix);
/// The same for int-quantized: ".weight" as signed bytes, ".weight_scale" and, for static inputs, ".input_scale".
std::vector<SafetensorsWriter::Entry> int_entries(std::string_view module, std::int64_t rows, std::int64_t cols,
                                                  DType scale_dtype, InputActivations input_activations);
/// q: 8 bits, symmetric, one scale per row.
std::vector<std::byte> int_serialize(const QuantTensor& q, std::string_view suffix);
/// observer: what found the static scales ("minmax", ...).
nlohmann::ordered_json int_quantization_config(InputActivations input_activations, const std::string& observer,
                                               const std::vector<std::string>& ignore);
/// quantization_config for config.json. groups: (targets, args), targets being "Linear", exact module names or
/// "re:..." patterns; exact names win over patterns, patterns over "Linear". ignore: the same kinds of targets.
nlohmann::ordered_json quantization_config(const std::vector<std::pair<std::vector<std::string>, QuantArgs>>& groups,
                                           const std::vector<std::string>& ignore);
}  // namespace compressed_tensors

}  // namespace kedge
