// The recipe of an ablation: a TOML file (docs/formats/ablation.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/toml_section.h"
#include "claims/ablation_tasks.h"
#include "kedge/quantize.h"

namespace kedge {

struct AblationMethodRecipe {
  std::string name;         ///< the label
  int line = 0;             ///< of the recipe
  QuantizeOptions options;  ///< calibration included; source, destination, scheme and seed are set per run
};

struct AblationRecipe {
  std::filesystem::path file;
  std::string sha256;  ///< of the file's text
  std::vector<std::filesystem::path> models, texts;
  std::vector<int> model_lines;
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> schemes;
  std::vector<AblationMethodRecipe> methods;
  std::size_t baseline = 0;  ///< index into methods
  std::int64_t audit_seqlen = 256, audit_limit = 0;
  bool whole = true;    ///< quantize whole models
  bool layers = false;  ///< quantize one layer at a time
  int schemes_line = 0;
  AblationEval eval;
};

/// Paths are taken from the recipe's folder. Error(bad_file) "FILE:LINE: ...": no TOML, unknown or repeated keys, wrong
/// types, values out of range; Error(not_found): the recipe, a model or a text.
AblationRecipe read_ablation_recipe(const std::filesystem::path& file);

/// The keys of a method (claims/method_keys.h) that the table has, into options; "method" must be there. Error(bad_file)
/// also for flags of kedge quantize that no method sets; unknown keys are left to refuse_others().
void read_method_keys(TomlSection& section, QuantizeOptions& options);

}  // namespace kedge
