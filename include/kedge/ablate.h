// kedge ablate: methods x seeds x schemes on given models, everything else held equal, compared in pairs.
//
// The figures, over seeds: means with Student-t 95 % intervals. Against the baseline: the relative change of x is
// exp(mean over seeds of ln(x / x_baseline)) - 1, each seed paired with the same seed of the baseline, interval by
// Student's t of the logarithms. docs/formats/ablation.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kedge/options.h"

namespace kedge {

class LayerTunerFactory;

struct AblateOptions {
  std::filesystem::path recipe;  ///< TOML, docs/formats/ablation.md
  std::filesystem::path out;     ///< folder for runs/, ablation.json, ablation.html, ablation.md
  bool resume = false;           ///< take the finished runs that are in out
  bool keep = false;             ///< keep the quantized models, in out/models
  bool verbose = false;          ///< notes, progress and warnings within each run
  RuntimeOptions runtime;        ///< of the audits; its threads also of the quantization
};

/// low, high: NaN where there is no interval (a single value).
struct AblationValue {
  double mean = 0, low = 0, high = 0;
  std::int64_t n = 0;
};

/// Share of right answers in a task of kedge eval, or in the group that counts it.
struct AblationTask {
  std::string name, metric;  ///< "blimp", "acc,none"
  std::int64_t samples = 0;  ///< questions
  double original = 0, quantized = 0;
};

/// A model quantized and audited once.
struct AblationRun {
  std::size_t model = 0, scheme = 0, method = 0;  ///< indices into AblationReport
  bool seedless = false;   ///< the method reads no calibration data: one run stands for all seeds
  std::uint64_t seed = 0;  ///< not read when seedless
  int layer = -1;          ///< the only quantized layer; -1: the whole model
  double one_minus_jaccard = 0, exact_set = 0, kld = 0, ln_ratio = 0;  ///< means over MoE layers; of predictions
  double changed_after = 0;    ///< mean 1 - Jaccard of the MoE layers after `layer`; NaN where there is none
  double seconds = 0;          ///< of quantization; NaN when it was resumed, so that a part of it is not known
  double bits_per_weight = 0;  ///< of the quantized matrices
  std::vector<double> layers;  ///< 1 - Jaccard by MoE layer
  std::vector<AblationTask> tasks;
  std::string record;          ///< its file in out/runs
};

struct AblationMethod {
  std::string name;
  bool baseline = false, seedless = false;
  /// one_minus_jaccard, exact_set, kld, ln_ratio, seconds, bits_per_weight
  std::vector<std::pair<std::string, AblationValue>> figures;
  AblationValue changed_ratio, kld_ratio;  ///< relative change against the baseline; of the baseline itself: 0
  std::vector<AblationValue> layers;       ///< 1 - Jaccard by MoE layer
  std::vector<AblationValue> tasks, task_changes;  ///< accuracy by task, and less the original's
};
/// CHECKs that the figure is there.
const AblationValue& figure(const AblationMethod& method, std::string_view name);

/// One model in one scheme, quantized as a whole.
struct AblationTable {
  std::size_t model = 0, scheme = 0;
  std::vector<AblationMethod> methods;
  std::vector<AblationTask> tasks;  ///< the original's; `quantized` is not read
};

/// One layer quantized at a time: does routing that changes after the layer go with the divergence of the predictions?
struct AblationCorrelation {
  std::string name;  ///< pearson, spearman, pearson_log, pearson_log_within_layers
  double value = 0, low = 0, high = 0;
};
struct AblationMechanism {
  std::size_t model = 0;
  std::string scheme;                  ///< empty: all together
  std::int64_t points = 0, cells = 0;  ///< runs; (scheme, layer, method)
  std::vector<AblationCorrelation> correlations;
};

struct AblationModel {
  std::string path, sha256, model_type;
  std::vector<int> moe_layers;
};

struct AblationReport {
  std::vector<AblationModel> models;
  std::vector<std::string> schemes, methods;
  std::size_t baseline = 0;
  std::vector<std::uint64_t> seeds;
  std::int64_t tokens = 0, sequences = 0;  ///< of an audit
  std::vector<AblationRun> runs;           ///< in the order of the recipe
  std::vector<AblationTable> tables;       ///< empty when the recipe asks for single layers only
  std::vector<AblationMechanism> mechanisms;
  std::int64_t runs_done = 0, runs_resumed = 0, runs_with_warnings = 0;
  double seconds = 0;
  std::string provenance_json, config_json;
};

/// Writes out/runs/*.json as it goes and out/ablation.{json,html,md} at the end. Error(bad_file), Error(not_found): the
/// recipe; Error(exists): out has runs and resume is not set; Error(interrupted): finished runs stay; and what
/// quantize() and audit() throw. tuners: as of quantize().
AblationReport ablate(const AblateOptions& options, LayerTunerFactory* tuners = nullptr);

std::string ablation_table(const AblationReport& report);     ///< for a terminal
std::string ablation_json(const AblationReport& report);      ///< schema kedge.ablation/1
std::string ablation_html(const AblationReport& report);      ///< one self-contained page
std::string ablation_markdown(const AblationReport& report);  ///< tables for docs

}  // namespace kedge
