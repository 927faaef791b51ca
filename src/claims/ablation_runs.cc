#include "claims/ablation_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "claims/method_keys.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/inspect.h"
#include "ptq/make_recipe.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSchema = "kedge.ablation-run/1";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool reads_calibration(const QuantizeOptions& options) {
  return make_recipe(options).calibrated();
}

// All layers but one stay as they are. What stands in no layer is left to the method's own overrides.
void quantize_only(int layer, int layers, QuantizeOptions& options) {
  for (int other = 0; other < layers; ++other) {
    if (other != layer) options.overrides.push_back({fmt::format("*.layers.{}.*", other), "none"});
  }
}

QuantizeOptions options_of(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs) {
  QuantizeOptions options = recipe.methods[spec.method].options;
  options.source = recipe.models[spec.model];
  options.scheme = recipe.schemes[spec.scheme];
  if (spec.seed) options.calibration.seed = *spec.seed;
  if (spec.layer >= 0) quantize_only(spec.layer, inputs.layers[spec.model], options);
  return options;
}

Json calibration_config(const QuantizeOptions& options, const AblationInputs& inputs) {
  Json files = Json::array();
  for (const auto& file : options.calibration.files) {
    files.push_back({{"path", file.string()}, {"sha256", inputs.file_hashes.at(file)}});
  }
  return {{"files", std::move(files)},
          {"field", options.calibration.field},
          {"nsamples", options.calibration.nsamples},
          {"seqlen", options.calibration.seqlen}};
}

Json config_of(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs,
               const AblateOptions& options) {
  const AblationMethodRecipe& method = recipe.methods[spec.method];
  Json texts = Json::array();
  for (std::size_t i = 0; i < recipe.texts.size(); ++i) {
    texts.push_back({{"path", recipe.texts[i].string()}, {"sha256", inputs.text_hashes[i]}});
  }
  const AblationModel& model = inputs.models[spec.model];
  Json config = {{"model", {{"path", model.path}, {"sha256", model.sha256}}},
                 {"scheme", recipe.schemes[spec.scheme]},
                 {"method", {{"name", method.name}, {"settings", method_settings(method.options)}}},
                 {"calibration", spec.seed ? calibration_config(method.options, inputs) : Json(nullptr)},
                 {"seed", spec.seed ? Json(*spec.seed) : Json(nullptr)},
                 {"layer", spec.layer < 0 ? Json(nullptr) : Json(spec.layer)},
                 {"audit",
                  {{"texts", std::move(texts)},
                   {"seqlen", recipe.audit_seqlen},
                   {"limit", recipe.audit_limit},
                   {"numerics", options.runtime.numerics},
                   {"activations", options.runtime.activations}}}};
  if (!recipe.eval.tasks.empty()) config["eval"] = Json::parse(inputs.eval);
  return config;
}

// Labels and paths are names, not causes.
std::string hash_of(Json config) {
  config["method"].erase("name");
  config["model"].erase("path");
  for (Json& text : config["audit"]["texts"]) text.erase("path");
  if (!config["calibration"].is_null()) {
    for (Json& file : config["calibration"]["files"]) file.erase("path");
  }
  if (config.contains("eval")) config["eval"].erase("data_dir");
  config["version"] = version();
  return sha256_hex(config.dump());
}

std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool keep = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.';
    if (keep) out += c;
    if (!keep && !out.empty() && out.back() != '-') out += '-';
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out.substr(0, 60);
}

std::string stem_of(const RunSpec& spec, const AblationRecipe& recipe) {
  std::string out = fmt::format("{}_{}_{}", plain(recipe.models[spec.model].filename().string()),
                                plain(recipe.schemes[spec.scheme]), plain(recipe.methods[spec.method].name));
  if (spec.seed) out += fmt::format("_seed{}", *spec.seed);
  if (spec.layer >= 0) out += fmt::format("_layer{}", spec.layer);
  return out + "_" + spec.hash.substr(0, 8);
}

AblationModel describe(const AblationRecipe& recipe, std::size_t at, int& layers) {
  const fs::path& path = recipe.models[at];
  const InspectReport report = inspect(path);
  if (report.moe_layers == 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}:{}: {} ({}) has no MoE layer, so there is no routing to compare", recipe.file.string(),
                            recipe.model_lines[at], path.string(), report.model_type),
                "a Mixture-of-Experts model");
  }
  layers = report.layers;
  return {path.string(), hash_input(path), report.model_type, {}};
}

void dry_run(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs,
             LayerTunerFactory* tuners) {
  QuantizeOptions options = options_of(spec, recipe, inputs);
  options.dry_run = true;
  try {
    if (tuners == nullptr && quantize_method_needs_torch(options.method)) {
      throw Error(ErrorCode::unsupported, "it needs libtorch", "methods without gradients",
                  "or kedge-torch, which \"make torch\" builds");
    }
    quantize(options, tuners);
  } catch (const Error& error) {
    const AblationMethodRecipe& method = recipe.methods[spec.method];
    throw Error(error.code(),
                fmt::format("{}:{}: \"{}\" of {} to {} cannot work: {}", recipe.file.string(), method.line, method.name,
                            options.source.string(), options.scheme, error.what()));
  }
}

Json record_of(const RunSpec& spec, Json config, const AblationRecipe& recipe, const QuantizeReport& quantized,
               bool resumed, const AuditReport& audited) {
  const Json report = Json::parse(audit_json(audited));
  Json provenance = report.at("provenance");
  if (spec.seed) provenance["seeds"] = Json::array({*spec.seed});
  provenance["inputs"].push_back({{"role", "recipe"}, {"path", recipe.file.string()}, {"sha256", recipe.sha256}});
  Json layers = report.at("results").at("layers");
  for (Json& layer : layers) {
    layer.erase("tokens_per_expert_original");
    layer.erase("tokens_per_expert_quantized");
  }
  Json results{{"run_hash", spec.hash},
               {"model_type", quantized.model_type},
               {"quantize_recipe_hash", quantized.recipe_hash},
               {"quantized_sha256", audited.quantized.sha256},
               {"bits_per_weight", quantized.bits_per_weight},
               {"quantized_bits_per_weight", quantized.quantized_bits_per_weight},
               {"output_bytes", quantized.output_bytes},
               {"quantize_seconds", quantized.seconds},
               {"quantize_resumed", resumed},
               {"audit_seconds", audited.seconds},
               {"sequences", audited.sequences},
               {"tokens", audited.tokens},
               {"mean", report.at("results").at("mean")},
               {"layers", std::move(layers)}};
  return {{"schema", kSchema},
          {"provenance", std::move(provenance)},
          {"config", std::move(config)},
          {"results", std::move(results)},
          {"samples", report.at("samples")}};
}

void remove_model(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) throw Error(ErrorCode::io, "cannot remove " + folder.string() + ": " + error.message());
}

double number(const Json& value) { return value.is_null() ? kNaN : value.get<double>(); }

}  // namespace

AblationInputs check_ablation(const AblationRecipe& recipe, LayerTunerFactory* tuners) {
  AblationInputs inputs;
  for (std::size_t m = 0; m < recipe.models.size(); ++m) {
    int layers = 0;
    inputs.models.push_back(describe(recipe, m, layers));
    inputs.layers.push_back(layers);
  }
  for (const auto& text : recipe.texts) inputs.text_hashes.push_back(hash_input(text));
  inputs.eval = eval_config(recipe.eval).dump(-1, ' ', false, Json::error_handler_t::replace);
  for (const AblationMethodRecipe& method : recipe.methods) {
    for (const auto& file : method.options.calibration.files) {
      if (!inputs.file_hashes.contains(file)) inputs.file_hashes[file] = hash_input(file);
    }
  }
  for (std::size_t m = 0; m < recipe.models.size(); ++m) {
    for (std::size_t s = 0; s < recipe.schemes.size(); ++s) {
      for (std::size_t k = 0; k < recipe.methods.size(); ++k) {
        dry_run({m, s, k, {}, -1, {}, {}}, recipe, inputs, tuners);
        if (recipe.layers) dry_run({m, s, k, {}, 0, {}, {}}, recipe, inputs, tuners);
      }
    }
  }
  return inputs;
}

std::vector<RunSpec> plan_runs(const AblationRecipe& recipe, const AblationInputs& inputs,
                               const AblateOptions& options) {
  std::vector<RunSpec> runs;
  const auto add = [&](RunSpec spec) {
    spec.hash = hash_of(config_of(spec, recipe, inputs, options));
    spec.stem = stem_of(spec, recipe);
    runs.push_back(std::move(spec));
  };
  for (std::size_t i = 0; i < recipe.seeds.size(); ++i) {
    for (std::size_t m = 0; m < recipe.models.size(); ++m) {
      for (std::size_t s = 0; s < recipe.schemes.size(); ++s) {
        for (std::size_t k = 0; k < recipe.methods.size(); ++k) {
          const bool seeded = reads_calibration(recipe.methods[k].options);
          if (!seeded && i > 0) continue;
          RunSpec spec{m, s, k, seeded ? std::optional(recipe.seeds[i]) : std::nullopt, -1, {}, {}};
          if (recipe.whole) add(spec);
          for (int layer = 0; recipe.layers && layer < inputs.layers[m]; ++layer) {
            spec.layer = layer;
            add(spec);
          }
        }
      }
    }
  }
  return runs;
}

Json execute_run(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs,
                 const AblateOptions& options, LayerTunerFactory* tuners, OriginalScores& originals) {
  const TalkScope talk(options.verbose);
  const bool has_tasks = !recipe.eval.tasks.empty();
  std::vector<TaskScore> before, after;
  if (has_tasks) before = originals.of(recipe.models[spec.model], recipe.eval, options.runtime);
  QuantizeOptions quantization = options_of(spec, recipe, inputs);
  quantization.threads = options.runtime.threads;
  quantization.destination = options.out / "models" / spec.stem;
  // Complete, but the run was stopped in its audit: its time is not known any more.
  remove_model(quantization.destination);
  const bool resumed = fs::exists(quantization.destination.string() + ".partial");
  const QuantizeReport quantized = quantize(quantization, tuners);

  AuditOptions audit_options;
  audit_options.original = quantization.source;
  audit_options.quantized = quantization.destination;
  audit_options.texts = recipe.texts;
  audit_options.seqlen = recipe.audit_seqlen;
  audit_options.limit = recipe.audit_limit;
  audit_options.runtime = options.runtime;
  const AuditReport audited = audit(audit_options);
  if (has_tasks) after = score_tasks(quantization.destination, recipe.eval, options.runtime);
  if (!options.keep) remove_model(quantization.destination);
  Json record = record_of(spec, config_of(spec, recipe, inputs, options), recipe, quantized, resumed, audited);
  if (has_tasks) record["results"]["tasks"] = tasks_to_json(before, after);
  record["results"]["warnings"] = talk.warnings();
  return record;
}

AblationRun run_of_record(const RunSpec& spec, const Json& record, const std::string& where) {
  AblationRun run;
  run.model = spec.model, run.scheme = spec.scheme, run.method = spec.method, run.layer = spec.layer;
  run.seedless = !spec.seed.has_value();
  run.seed = spec.seed.value_or(0);
  try {
    const Json& results = record.at("results");
    const Json& mean = results.at("mean");
    run.one_minus_jaccard = 1 - number(mean.at("jaccard").at("mean"));
    run.exact_set = number(mean.at("exact_set").at("mean"));
    run.kld = number(mean.at("kld").at("mean"));
    run.ln_ratio = number(mean.at("ln_ratio").at("mean"));
    run.seconds = results.at("quantize_resumed").get<bool>() ? kNaN : number(results.at("quantize_seconds"));
    run.bits_per_weight = number(results.at("quantized_bits_per_weight"));
    double after = 0;
    int layers_after = 0;
    for (const Json& layer : results.at("layers")) {
      run.layers.push_back(1 - number(layer.at("jaccard").at("mean")));
      if (spec.layer < 0 || layer.at("layer").get<int>() <= spec.layer) continue;
      after += run.layers.back();
      ++layers_after;
    }
    run.tasks = tasks_from_json(results.value("tasks", Json::array()));
    run.changed_after = layers_after == 0 ? kNaN : after / layers_after;
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, where + " is no record of a run: " + error.what(), kSchema,
                "remove it, and run again with --resume");
  }
  return run;
}

std::map<std::string, fs::path> find_records(const fs::path& folder) {
  std::map<std::string, fs::path> records;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".json") continue;
    try {
      const Json record = read_json(at->path());
      if (record.at("schema") != kSchema) continue;
      records.emplace(record.at("results").at("run_hash").get<std::string>(), at->path());
    } catch (const std::exception& damaged) {
      warn(fmt::format("{} is no record of a run and is left out: {}", at->path().string(), damaged.what()));
    }
  }
  return records;
}

}  // namespace kedge
