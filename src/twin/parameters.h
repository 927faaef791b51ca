// The parameters of a ModelSpec: canonical full names (model/family.h), shapes, and their values as tensors.
//
// "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
// "model.layers.0.mlp.experts.3.gate_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias",
// "model.norm.weight", "lm_head.weight" (absent when tied).
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/spec.h"
#include "nn/weight_source.h"
#include "tensor/tensor.h"
#include "twin/options.h"

namespace kedge::twin {

enum class ParameterKind { embedding, matrix, router, norm, bias, selection_bias, temperature };

struct ParameterInfo {
  std::string name;
  Shape shape;  ///< [out, in] of a matrix, [size] of a vector
  ParameterKind kind = ParameterKind::matrix;
  int layer = -1;  ///< -1: outside the layers
};

/// All of a model, in the order of execution; every name once.
std::vector<ParameterInfo> list_parameters(const ModelSpec& spec);
/// Those of one block (its pre-norm first).
std::vector<ParameterInfo> list_block_parameters(const ModelSpec& spec, std::size_t block);
/// Those of all blocks of a layer.
std::vector<ParameterInfo> list_layer_parameters(const ModelSpec& spec, int layer);

/// "model.layers.0.mlp.experts.3.gate_proj.weight" -> "model.layers.0.mlp.experts.gate_proj.weight", the name under
/// which all experts of a layer are one tensor (Options::stacked_experts); empty for all other names.
std::string stacked_name(const std::string& name);

/// Named tensors in a fixed order.
class Parameters {
 public:
  using Item = std::pair<std::string, Tensor>;

  void insert(std::string name, Tensor value);              ///< CHECKs that the name is new
  const Tensor& operator[](const std::string& name) const;  ///< CHECKs that it is there
  bool contains(const std::string& name) const { return index_.contains(name); }
  std::size_t size() const noexcept { return items_.size(); }
  std::vector<Item>::const_iterator begin() const noexcept { return items_.begin(); }
  std::vector<Item>::const_iterator end() const noexcept { return items_.end(); }
  /// Leaves that gradients reach; without the selection bias, which steers the discrete choice alone.
  void require_gradients(bool required);
  /// The tensors, for an optimizer: those that require a gradient.
  std::vector<Tensor> trainable() const;

 private:
  std::vector<Item> items_;
  std::unordered_map<std::string, std::size_t> index_;
};

/// From a checkpoint (model/checkpoint_source.h) or another source; a quantized weight comes dequantized. Errors as
/// the source's.
Parameters load_parameters(const std::vector<ParameterInfo>& infos, const WeightSource& source, const Options& options);
/// Normal with the deviation 0.02 (transformers' initializer_range); norms 1, biases 0. Drawn on the CPU in the
/// list's order, so the same on any device.
Parameters random_parameters(const std::vector<ParameterInfo>& infos, std::uint64_t seed, const Options& options,
                             double deviation = 0.02);

}  // namespace kedge::twin
