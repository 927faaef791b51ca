// The runs of an ablation: which there are, what each did, one JSON record per run (kedge.ablation-run/1).
//
// A run is known by the hash of all that its figures depend on: kedge's version, the model, the texts, the scheme, the
// method's settings, the calibration data, the seed, the layer. A record with that hash is never computed again.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "claims/ablation_recipe.h"
#include "claims/ablation_tasks.h"
#include "kedge/ablate.h"

namespace kedge {

struct RunSpec {
  std::size_t model = 0, scheme = 0, method = 0;
  std::optional<std::uint64_t> seed;  ///< nullopt: the method reads no calibration data
  int layer = -1;                     ///< the only quantized layer; -1: all
  std::string hash;                   ///< SHA-256
  std::string stem;                   ///< a readable name that ends in the first digits of the hash
};

/// What the runs share.
struct AblationInputs {
  std::vector<AblationModel> models;
  std::vector<int> layers;  ///< of each model
  std::vector<std::string> text_hashes;
  std::map<std::filesystem::path, std::string> file_hashes;  ///< of calibration files
  std::string eval;                                          ///< eval_config(), as JSON
};

/// Hashes models and texts; plans every quantization without reading weights, so that what cannot work fails here.
/// Error: as quantize(), with the recipe's line.
AblationInputs check_ablation(const AblationRecipe& recipe, LayerTunerFactory* tuners);

/// Seed by seed, so that after the first seed the rate is that of the rest.
std::vector<RunSpec> plan_runs(const AblationRecipe& recipe, const AblationInputs& inputs,
                               const AblateOptions& options);

/// Quantizes into out/models (which must be there), audits, scores on the recipe's tasks, removes the quantized model
/// (unless options.keep), gives the record. What a stopped run left there is finished.
nlohmann::ordered_json execute_run(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs,
                                   const AblateOptions& options, LayerTunerFactory* tuners, OriginalScores& originals);

/// The figures of a record. Error(bad_file) naming `where`.
AblationRun run_of_record(const RunSpec& spec, const nlohmann::ordered_json& record, const std::string& where);

/// Records in a folder by their runs' hashes; damaged ones are named in a warning and left out. Empty when there is no
/// such folder.
std::map<std::string, std::filesystem::path> find_records(const std::filesystem::path& folder);

}  // namespace kedge
