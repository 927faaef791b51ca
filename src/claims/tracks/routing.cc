// Track R: does a quantized model send tokens to the experts of the original? Method against method, everything else
// held equal, paired by seed (the seed chooses the calibration sequences), by the runs of kedge ablate.
//
// [setup] model, texts, scheme, seqlen and limit of the audit, [setup.calibration] nsamples and seqlen, [setup.subject]
// and [setup.baseline]: a method each, with the flags of kedge quantize. One sample per seed.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/toml_section.h"
#include "claims/ablation_recipe.h"
#include "claims/ablation_runs.h"
#include "claims/tracks/rows.h"
#include "kedge/error.h"
#include "record/envelope.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

struct MetricRow {
  const char* name;
  double (*of)(const AblationRun& run);
};
constexpr std::array<MetricRow, 6> kMetrics = {{
    {"one_minus_jaccard", [](const AblationRun& run) { return run.one_minus_jaccard; }},
    {"one_minus_exact_set", [](const AblationRun& run) { return 1 - run.exact_set; }},
    {"kld", [](const AblationRun& run) { return run.kld; }},
    {"ln_ratio", [](const AblationRun& run) { return run.ln_ratio; }},
    {"seconds", [](const AblationRun& run) { return run.seconds; }},
    {"bits_per_weight", [](const AblationRun& run) { return run.bits_per_weight; }},
}};

const MetricRow& metric_row(const Claim& claim) {
  for (const MetricRow& row : kMetrics) {
    if (claim.metric == row.name) return row;
  }
  std::string names;
  for (const MetricRow& row : kMetrics) names += (names.empty() ? "" : ", ") + std::string(row.name);
  throw Error(ErrorCode::bad_file, fmt::format("{}: track R has no metric \"{}\"", claim.file.string(), claim.metric),
              "one of " + names);
}

AblationMethodRecipe read_method(const Claim& claim, const char* name, const TomlValue& value,
                                 const CalibrationOptions& calibration) {
  TomlSection section(claim.file, fmt::format("[setup.{}]", name), value);
  AblationMethodRecipe method;
  method.name = name, method.line = section.line();
  method.options.calibration = calibration;
  read_method_keys(section, method.options);
  section.refuse_others();
  return method;
}

// As kedge ablate has it: the subject first, the baseline second where there is one.
AblationRecipe read_setup(const Claim& claim, const ClaimSize& size) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  AblationRecipe recipe;
  recipe.file = claim.file, recipe.sha256 = claim.sha256;
  const TomlValue& model = section.require("model", "a list of one model folder");
  recipe.models = section.paths("model", model);
  recipe.model_lines.assign(recipe.models.size(), model.line);
  if (recipe.models.size() != 1) section.fail(model.line, "\"model\" names several", "a list of one model folder");
  recipe.texts = section.paths("texts", section.require("texts", "the texts of the audit"));
  recipe.schemes = {section.as<std::string>("scheme", section.require("scheme", "such as \"w3a16-g128\""), "a text")};
  recipe.schemes_line = section.line();
  recipe.audit_seqlen = section.integer("seqlen", recipe.audit_seqlen, 2);
  recipe.audit_limit = section.integer("limit", recipe.audit_limit, 0);
  recipe.seeds = size.seeds;
  CalibrationOptions calibration;
  if (const TomlValue* value = section.find("calibration")) {
    TomlSection own(claim.file, "[setup.calibration]", *value);
    calibration.nsamples = own.integer("nsamples", calibration.nsamples, 0);
    calibration.seqlen = own.integer("seqlen", calibration.seqlen, 0);
    own.refuse_others();
  }
  recipe.methods.push_back(
      read_method(claim, "subject", section.require("subject", "the method that the claim is about"), calibration));
  if (claim.effect != Effect::value) {
    recipe.methods.push_back(read_method(
        claim, "baseline", section.require("baseline", "the method that it is compared with"), calibration));
  }
  section.refuse_others();
  return recipe;
}

class Runs {
 public:
  Runs(const TrackContext& context) : context_(context), records_(find_records(folder())) {
    std::error_code error;
    fs::create_directories(folder(), error);
    fs::create_directories(context.scratch / "models", error);
    if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder().string() + ": " + error.message());
    options_.out = context.scratch;
    options_.runtime = context.runtime;
  }

  TrackOutcome measure(const Claim& claim, const ClaimSize& size) {
    TrackOutcome outcome;
    const AblationRecipe recipe = read_setup(claim, size);
    const AblationInputs inputs = check_ablation(recipe, context_.tuners);
    // By method and seed; a run without seed stands for all.
    std::map<std::pair<std::size_t, std::uint64_t>, double> values;
    bool seeded = false;
    for (const RunSpec& spec : plan_runs(recipe, inputs, options_)) {
      seeded = seeded || spec.seed.has_value();
      const fs::path file = record(spec, recipe, inputs);
      const AblationRun run = run_of_record(spec, read_json(file), file.string());
      const double value = metric_row(claim).of(run);
      for (const std::uint64_t seed : size.seeds) {
        if (!spec.seed || *spec.seed == seed) values[{spec.method, seed}] = value;
      }
      const std::string path = fs::relative(file, context_.bundle).generic_string();
      const bool listed = std::any_of(outcome.artifacts.begin(), outcome.artifacts.end(),
                                      [&](const Artifact& artifact) { return artifact.path == path; });
      if (!listed) outcome.artifacts.push_back({path, {}});
    }
    for (const std::uint64_t seed : size.seeds) {
      // Where no side has a seed, all samples are one measurement.
      ClaimSample sample{fmt::format("seed {}", seed), seeded ? static_cast<std::int64_t>(seed) : 0, {}};
      if (claim.effect == Effect::value) {
        sample.values = {{"value", values.at({0, seed})}};
      } else {
        sample.values = {{"subject", values.at({0, seed})}, {"baseline", values.at({1, seed})}};
      }
      outcome.samples.push_back(std::move(sample));
    }
    outcome.inputs.push_back({"model", inputs.models[0].path, inputs.models[0].sha256});
    for (std::size_t i = 0; i < recipe.texts.size(); ++i) {
      outcome.inputs.push_back({"text", recipe.texts[i].string(), inputs.text_hashes[i]});
    }
    return outcome;
  }

 private:
  fs::path folder() const { return context_.bundle / "records" / "R"; }

  // Each run is computed once for all claims.
  fs::path record(const RunSpec& spec, const AblationRecipe& recipe, const AblationInputs& inputs) {
    const auto at = records_.find(spec.hash);
    if (at != records_.end()) return at->second;
    const Json json = execute_run(spec, recipe, inputs, options_, context_.tuners, originals_);
    const fs::path file = folder() / (spec.hash.substr(0, 16) + ".json");
    write_envelope(file, json);
    const Json& mean = json.at("results").at("mean");
    context_.log(fmt::format("  {}: jaccard {}, kld {}", spec.stem, mean.at("jaccard").at("mean").dump(),
                             mean.at("kld").at("mean").dump()));
    records_[spec.hash] = file;
    return file;
  }

  const TrackContext& context_;
  AblateOptions options_;
  OriginalScores originals_;
  std::map<std::string, fs::path> records_;
};

bool needs_tuner(const AblationRecipe& recipe) {
  return std::any_of(recipe.methods.begin(), recipe.methods.end(), [](const AblationMethodRecipe& method) {
    return quantize_method_needs_torch(method.options.method);
  });
}

}  // namespace

void check_routing(const Claim& claim) {
  metric_row(claim);
  const AblationRecipe recipe = read_setup(claim, claim.full);
  const bool seeded = !claim.full.seeds.empty() && !claim.quick.seeds.empty();
  const bool counted = static_cast<std::size_t>(claim.full.n) == claim.full.seeds.size() &&
                       static_cast<std::size_t>(claim.quick.n) == claim.quick.seeds.size();
  if (!seeded || !counted) {
    throw Error(ErrorCode::bad_file, claim.file.string() + ": n is not the number of seeds",
                "one sample per seed in each profile");
  }
  const bool tuned_row = claim.subject == "quantize-tuned";
  if (needs_tuner(recipe) != tuned_row) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: the subject is \"{}\" and its methods {} gradients", claim.file.string(),
                            claim.subject, tuned_row ? "need no" : "tune by"),
                "quantize-tuned for methods that tune by gradients, quantize for the others");
  }
}

void run_routing(std::span<const TrackJob> jobs, const TrackContext& context) {
  Runs runs(context);
  for (const TrackJob& job : jobs) {
    TrackOutcome outcome;
    if (context.tuners == nullptr && needs_tuner(read_setup(*job.claim, job.size))) {
      outcome.not_run = "its methods tune by gradients, and this is kedge without libtorch: kedge-torch verify runs it";
      outcome.missing_subject = true;
    } else {
      outcome = runs.measure(*job.claim, job.size);
    }
    context.done(job, std::move(outcome));
  }
}

}  // namespace kedge
