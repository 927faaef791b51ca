// Model families: config keys -> ModelSpec, and canonical parameter names <-> names in the file.
//
// Canonical names are those most Hugging Face families use ("model.layers.0.mlp.experts.3.gate_proj"); a family's
// rules rewrite them to what its files say. One file and one row of families.cc per family.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/checkpoint.h"
#include "model/spec.h"

namespace kedge {

/// A part of a dotted name that differs in the file, e.g. {".mlp.experts.*.gate_proj",
/// ".block_sparse_moe.experts.*.w1"};
/// '*' stands for a number and must occur equally often on both sides. Applied in either direction.
struct NameRule {
  const char* canonical;
  const char* file;
};

struct ModelFamily {
  const char* model_type;
  ModelSpec (*spec)(const nlohmann::ordered_json& config, const std::string& where);
  std::span<const NameRule> rules;
};

std::span<const ModelFamily> model_families() noexcept;
/// By config["model_type"]. Error(unsupported) lists the families.
const ModelFamily& family_of(const nlohmann::ordered_json& config, const std::string& where);
ModelSpec model_spec(const Checkpoint& checkpoint);

std::string to_file_name(const ModelFamily& family, std::string_view canonical);
std::string to_canonical_name(const ModelFamily& family, std::string_view file_name);

enum class LinearRole { attention, mlp, expert, shared_expert, router, lm_head };
/// As reports print it: "shared_expert".
const char* linear_role_name(LinearRole role) noexcept;

/// A matrix of the model that a quantizer may touch.
struct LinearRef {
  std::string module;  ///< name in the file, without ".weight"
  std::string canonical;
  std::int64_t rows = 0, cols = 0;
  LinearRole role = LinearRole::attention;
  int layer = -1;  ///< -1: outside the layers
  int expert = -1;
};

/// Every linear of the model in execution order, expert by expert (also when the file holds them fused), the router
/// included (role router), lm_head last when it is not tied.
std::vector<LinearRef> list_linears(const ModelSpec& spec, const ModelFamily& family);

/// The stack that an expert's matrix would be part of: "model.layers.1.mlp.experts.up_proj", canonical.
std::string stack_name(const LinearRef& expert);

/// Gives the plain or quantized weight of any LinearRef: under its name in the file, else under its canonical name
/// (transformers 5 may save either), else as a slice of the fused 3-D form: "<prefix>.experts.gate_up_proj" [E, 2I, H]
/// (gate rows first) and "<prefix>.experts.down_proj" [E, H, I].
WeightData load_linear(const Checkpoint& checkpoint, const LinearRef& linear);
/// The fused tensor that holds an expert's matrix ("model.layers.0.mlp.experts.3.up_proj"); empty when the checkpoint
/// has none.
std::string fused_tensor_name(const Checkpoint& checkpoint, std::string_view canonical);

}  // namespace kedge
