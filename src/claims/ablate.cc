#include "kedge/ablate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <tuple>
#include <utility>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "claims/ablation_runs.h"
#include "claims/ablation_summary.h"
#include "claims/method_keys.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "record/envelope.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

void refuse_earlier(const AblateOptions& options) {
  std::error_code ignored;
  if (fs::exists(options.out, ignored) && !fs::is_directory(options.out, ignored)) {
    throw Error(ErrorCode::exists, options.out.string() + " is a file", "a folder, or a name that is free");
  }
  if (!options.resume && fs::exists(options.out / "runs", ignored)) {
    throw Error(ErrorCode::exists, options.out.string() + " holds an earlier ablation", "",
                "give --resume to go on with it, or choose another folder");
  }
}

Json config_json(const AblationRecipe& recipe, const AblationInputs& inputs) {
  const auto names = [](const std::vector<fs::path>& paths) {
    Json out = Json::array();
    for (const fs::path& path : paths) out.push_back(path.string());
    return out;
  };
  Json methods = Json::array();
  for (const AblationMethodRecipe& method : recipe.methods) {
    const CalibrationOptions& calibration = method.options.calibration;
    methods.push_back({{"name", method.name},
                       {"settings", method_settings(method.options)},
                       {"calibration",
                        {{"files", names(calibration.files)},
                         {"field", calibration.field},
                         {"nsamples", calibration.nsamples},
                         {"seqlen", calibration.seqlen}}}});
  }
  return {{"recipe", recipe.file.string()},
          {"models", names(recipe.models)},
          {"texts", names(recipe.texts)},
          {"schemes", recipe.schemes},
          {"seeds", recipe.seeds},
          {"methods", std::move(methods)},
          {"baseline", recipe.methods[recipe.baseline].name},
          {"audit", {{"seqlen", recipe.audit_seqlen}, {"limit", recipe.audit_limit}}},
          {"eval", Json::parse(inputs.eval)},
          {"whole", recipe.whole},
          {"layers", recipe.layers}};
}

Provenance provenance_of(const AblateOptions& options, const AblationRecipe& recipe, const AblationInputs& inputs) {
  const ThreadPool threads(options.runtime.threads);
  Provenance out = make_provenance(make_load_options(options.runtime), threads.size());
  out.seeds = recipe.seeds;
  out.inputs.push_back({"recipe", recipe.file.string(), recipe.sha256});
  for (const AblationModel& model : inputs.models) out.inputs.push_back({"original", model.path, model.sha256});
  for (std::size_t i = 0; i < recipe.texts.size(); ++i) {
    out.inputs.push_back({"text", recipe.texts[i].string(), inputs.text_hashes[i]});
  }
  for (const auto& [file, hash] : inputs.file_hashes) out.inputs.push_back({"calibration", file.string(), hash});
  return out;
}

AblationReport start_report(const AblateOptions& options, const AblationRecipe& recipe, const AblationInputs& inputs) {
  AblationReport report;
  report.models = inputs.models;
  report.schemes = recipe.schemes;
  for (const AblationMethodRecipe& method : recipe.methods) report.methods.push_back(method.name);
  report.baseline = recipe.baseline;
  report.seeds = recipe.seeds;
  constexpr auto kReplace = Json::error_handler_t::replace;
  report.provenance_json = to_json(provenance_of(options, recipe, inputs)).dump(-1, ' ', false, kReplace);
  report.config_json = config_json(recipe, inputs).dump(-1, ' ', false, kReplace);
  return report;
}

// Records of another build of the same version are taken, but not in silence.
void warn_of_other_builds(const Json& record) {
  const std::string hash = record.at("provenance").value("git_hash", "");
  if (hash != git_hash()) {
    warn_once(fmt::format("some records were made by git {}, this is git {}", hash, git_hash()));
  }
}

void take_record(const RunSpec& spec, const fs::path& file, AblationReport& report) {
  const Json record = read_json(file);
  AblationRun run = run_of_record(spec, record, file.string());
  run.record = file.filename().string();
  warn_of_other_builds(record);
  report.sequences = record.at("results").value("sequences", std::int64_t{0});
  report.tokens = record.at("results").value("tokens", std::int64_t{0});
  AblationModel& model = report.models[spec.model];
  if (model.moe_layers.empty()) {
    for (const Json& layer : record.at("results").at("layers"))
      model.moe_layers.push_back(layer.at("layer").get<int>());
  }
  if (!record.at("results").value("warnings", Json::array()).empty()) report.runs_with_warnings += 1;
  report.runs.push_back(std::move(run));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder.string() + ": " + error.message());
}

// Two methods of equal settings share a run.
std::int64_t count_missing(const std::vector<RunSpec>& runs, const std::map<std::string, fs::path>& records) {
  std::set<std::string> missing;
  for (const RunSpec& run : runs) {
    if (!records.contains(run.hash)) missing.insert(run.hash);
  }
  return static_cast<std::int64_t>(missing.size());
}

// Before the first run on a model: what is wrong with [eval] is no method's fault.
void score_original(const RunSpec& run, const AblationRecipe& recipe, const AblateOptions& options,
                    OriginalScores& originals) {
  if (recipe.eval.tasks.empty()) return;
  const TalkScope talk(options.verbose);
  try {
    originals.of(recipe.models[run.model], recipe.eval, options.runtime);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::interrupted) throw;
    throw Error(error.code(), fmt::format("{}:{}: [eval]: {}", recipe.file.string(), recipe.eval.line, error.what()));
  }
}

Json execute(const RunSpec& run, const AblationRecipe& recipe, const AblationInputs& inputs,
             const AblateOptions& options, LayerTunerFactory* tuners, OriginalScores& originals) {
  try {
    return execute_run(run, recipe, inputs, options, tuners, originals);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::interrupted) throw;
    throw Error(error.code(), fmt::format("{}:{}: the run {} failed: {}", recipe.file.string(),
                                          recipe.methods[run.method].line, run.stem, error.what()));
  }
}

void run_all(const std::vector<RunSpec>& runs, const AblateOptions& options, const AblationRecipe& recipe,
             const AblationInputs& inputs, LayerTunerFactory* tuners, AblationReport& report) {
  const fs::path folder = options.out / "runs";
  std::map<std::string, fs::path> records = find_records(folder);
  const std::int64_t missing = count_missing(runs, records);
  make_folder(folder);
  make_folder(options.out / "models");
  Progress progress("ablate", missing, "runs");
  OriginalScores originals;
  try {
    for (const RunSpec& run : runs) {
      if (records.contains(run.hash)) {
        report.runs_resumed += 1;
      } else {
        throw_if_interrupted();
        progress.update(report.runs_done, run.stem);
        const fs::path file = folder / (run.stem + ".json");
        score_original(run, recipe, options, originals);
        write_envelope(file, execute(run, recipe, inputs, options, tuners, originals));
        records[run.hash] = file;
        report.runs_done += 1;
      }
      take_record(run, records.at(run.hash), report);
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::interrupted) throw;
    throw Error(ErrorCode::interrupted,
                fmt::format("interrupted with {} runs to go; what is finished is kept in {}",
                            missing - report.runs_done, folder.string()),
                "", "run the same command with --resume to go on");
  }
  if (missing > 0) progress.finish();
  if (report.runs_with_warnings > 0) {
    warn(fmt::format("{} of {} runs gave warnings; their records have them in results.warnings",
                     report.runs_with_warnings, report.runs.size()));
  }
}

}  // namespace

AblationReport ablate(const AblateOptions& options, LayerTunerFactory* tuners) {
  const auto start = std::chrono::steady_clock::now();
  const AblationRecipe recipe = read_ablation_recipe(options.recipe);
  refuse_earlier(options);
  const AblationInputs inputs = check_ablation(recipe, tuners);
  const std::vector<RunSpec> runs = plan_runs(recipe, inputs, options);
  AblationReport report = start_report(options, recipe, inputs);
  run_all(runs, options, recipe, inputs, tuners, report);

  std::stable_sort(report.runs.begin(), report.runs.end(), [](const AblationRun& a, const AblationRun& b) {
    return std::tie(a.model, a.scheme, a.method, a.layer) < std::tie(b.model, b.scheme, b.method, b.layer);
  });
  summarize_ablation(report);
  std::error_code not_empty;
  fs::remove(options.out / "models", not_empty);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_file_atomically(options.out / "ablation.json", ablation_json(report));
  write_file_atomically(options.out / "ablation.html", ablation_html(report));
  write_file_atomically(options.out / "ablation.md", ablation_markdown(report));
  return report;
}

}  // namespace kedge
