// A Hugging Face model directory, read: config.json, safetensors (single or sharded), generation_config.json.
//
// Weights are asked for by the module's name ("model.layers.0.self_attn.q_proj"); whether the file holds a plain
// tensor or a quantized one is the checkpoint's business (io/wire).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/safetensors.h"
#include "quant/anchor_delta.h"
#include "quant/quant_tensor.h"
#include "tensor/tensor.h"

namespace kedge {

/// A weight matrix as the file has it: a view of floats, or codes with scales.
using WeightData = std::variant<TensorView, QuantTensor>;

class Checkpoint {
 public:
  /// Error(not_found): no folder, no config.json, no weights, a missing shard. Error(bad_file): broken index,
  /// a tensor in two shards, an unsafe shard name. Error(unsupported): a quantization that no row of
  /// io/wire/formats.cc reads.
  static Checkpoint open(const std::filesystem::path& directory);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::filesystem::path& directory() const noexcept;
  const nlohmann::ordered_json& config() const noexcept;
  /// The parsed generation_config.json, or null when there is none.
  const nlohmann::ordered_json& generation_config() const noexcept;
  /// Empty for an unquantized checkpoint, else e.g. "compressed-tensors/pack-quantized".
  const std::string& quant_format() const noexcept;
  /// What the file says of the inputs of its quantized modules.
  InputActivations input_activations() const noexcept;

  /// All tensors of all shards, in file order; offsets are relative to their own shard.
  const std::vector<TensorInfo>& tensors() const noexcept;
  std::vector<std::filesystem::path> files() const;
  bool has(std::string_view tensor) const noexcept;
  TensorView tensor(std::string_view name) const;  ///< Error(not_found)
  /// The same with a required shape; Error(bad_file) names both shapes.
  TensorView tensor(std::string_view name, const Shape& shape) const;

  /// Is there "<module>.weight", or its quantized form?
  bool has_weight(std::string_view module) const noexcept;
  /// "<module>.weight" of shape [rows, cols] in whichever form. Error(not_found), Error(bad_file).
  WeightData weight(std::string_view module, std::int64_t rows, std::int64_t cols) const;
  /// How the module's weight is quantized, without reading it. Empty when it is plain.
  std::optional<QuantArgs> quant_args(std::string_view module) const;
  /// Matrices of all experts that share an anchor, by the stack's canonical name
  /// ("model.layers.1.mlp.experts.up_proj"); nullopt: there is no such stack. Reads nothing.
  std::optional<StackShape> stack_shape(std::string_view stack) const;
  /// Of a stack that there is. Error(bad_file), Error(mismatch) where its anchor is not the one of config.json.
  AnchorDelta stack(std::string_view stack) const;
  /// Lets the system forget the pages behind this module's weight (after packing), or behind a tensor of that name.
  void drop(std::string_view module) const noexcept;

  /// Bytes of all weight files; what "file size" means in memory targets.
  std::uint64_t file_bytes() const noexcept;
  /// SHA-256 over lines "<file hash>  <file name>\n" of config.json and the weight files, sorted by name. Reads all.
  std::string content_hash() const;

 private:
  Checkpoint();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
