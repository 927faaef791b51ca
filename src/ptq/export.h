// The files beside the weights of a quantized directory: config.json, the manifest, what is carried over.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/checkpoint.h"
#include "ptq/calibration_data.h"
#include "ptq/module_error.h"
#include "ptq/plan.h"
#include "ptq/recipe.h"

namespace kedge {

/// compressed-tensors' quantization_config of the plan's matrices that are stored by themselves; null where there are
/// none.
nlohmann::ordered_json plain_quantization(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe);
/// The source's config with quantization_config added. stacks: the manifests of a plan's stacks, by name.
std::string quantized_config(const Checkpoint& checkpoint, const QuantPlan& plan, const Recipe& recipe,
                             const nlohmann::ordered_json& stacks);

struct ManifestInput {
  const Checkpoint& checkpoint;
  const std::string& source_hash;
  const QuantPlan& plan;
  const Recipe& recipe;
  std::span<const ModuleError> errors;          ///< [modules of the plan]
  const CalibrationData* data = nullptr;        ///< null: no calibration
  std::vector<std::string> layers;              ///< LayerOutput::log of each layer; empty without calibration
  int ranks = 1;                                ///< that shared the calibration
};
/// kedge.manifest.json (docs/formats/manifest.md): no dates and no paths, so that equal inputs give equal bytes.
std::string manifest(const ManifestInput& input);

/// Tokenizer, generation and template files of the source, sorted by name.
std::vector<std::filesystem::path> side_files(const std::filesystem::path& source);

/// The errors of the modules in one shard, kept in the partial folder until the manifest is written.
std::string errors_to_json(const QuantPlan& plan, const ShardPlan& shard, std::span<const ModuleError> errors);
/// false: the text does not hold them all.
bool errors_from_json(const std::string& text, const QuantPlan& plan, const ShardPlan& shard,
                      std::span<ModuleError> errors);

}  // namespace kedge
