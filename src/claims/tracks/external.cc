// Track X: how well a model answers benchmarks, and how far its confidences can be trusted, by kedge eval.
//
// [setup] tasks, limit, votes, temperature; [setup.subject] and [setup.baseline]: a model each (model, scheme, method,
// activations) and `way`, "ar" or "self-consistency"; mc_samples. The subject "diffusion" (in kedge-torch) is a
// masked-diffusion model that is trained first: [setup.training] texts, steps, batch_size, seqlen, seed, from random
// weights of the model's config; its way is "diffusion". One sample per record, or per record and seed (of the votes),
// in the order of the tasks. Metrics:
//   accuracy                       the way's answer is right
//   acc, acc_norm                  as lm-evaluation-harness counts
//   ece_equal_width, ece_equal_mass, brier, auroc, aurc, confident_wrong_0.8   of the way's confidences
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <system_error>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/toml_section.h"
#include "claims/tracks/model_variant.h"
#include "claims/tracks/rows.h"
#include "kedge/error.h"
#include "kedge/evaluate.h"
#include "kedge/train.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::array kWays = {"ar", "self-consistency"};
constexpr const char* kDiffusion = "diffusion";  ///< the way of such a model, and the subject

struct Side {
  ModelVariant variant;
  std::size_t way = 0;  ///< index into kWays
};

struct Setup {
  std::vector<std::string> tasks;
  std::optional<TrainOptions> training;
  std::int64_t limit = 0, votes = 0, mc_samples = 0;
  double temperature = 0.7;
  std::vector<Side> sides;  ///< subject, and baseline where there is one
};

Side read_side(const Claim& claim, const char* name, const TomlValue& value) {
  const std::string title = fmt::format("[setup.{}]", name);
  const auto* table = std::get_if<TomlTable>(&value.value);
  TomlValue rest{TomlTable{}, value.line};
  Side side;
  for (const TomlEntry& entry : table == nullptr ? TomlTable{} : *table) {
    if (entry.key != "way") {
      std::get<TomlTable>(rest.value).push_back(entry);
      continue;
    }
    const auto* way = std::get_if<std::string>(&entry.value.value);
    const auto at = std::find(kWays.begin(), kWays.end(), way == nullptr ? std::string() : *way);
    if (at == kWays.end()) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}:{}: \"way\" names no way of answering", claim.file.string(), entry.value.line),
                  "ar or self-consistency");
    }
    side.way = static_cast<std::size_t>(at - kWays.begin());
  }
  side.variant = read_variant(claim.file, title, table == nullptr ? value : rest);
  if (!side.variant.shape.empty()) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: {} has random weights", claim.file.string(), title), "a model");
  }
  return side;
}

TrainOptions read_training(const Claim& claim, const TomlValue& value) {
  TomlSection section(claim.file, "[setup.training]", value);
  TrainOptions training;
  training.objective = "masked-diffusion";
  training.texts = section.paths("texts", section.require("texts", "the texts to train on"));
  training.steps = section.integer("steps", training.steps, 1);
  training.batch_size = section.integer("batch_size", training.batch_size, 1);
  training.seqlen = section.integer("seqlen", training.seqlen, 2);
  training.seed = static_cast<std::uint64_t>(section.integer("seed", 1, 0));
  training.save_every = 0;
  section.refuse_others();
  return training;
}

Setup read_setup(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  Setup setup;
  setup.tasks = section.texts("tasks", section.require("tasks", "names of tasks (kedge eval --list)"));
  setup.limit = section.integer("limit", 0, 0);
  setup.votes = section.integer("votes", 0, 0);
  setup.mc_samples = section.integer("mc_samples", 16, 1);
  if (claim.subject == kDiffusion) {
    setup.training = read_training(claim, section.require("training", "how the model is trained"));
  }
  if (const TomlValue* temperature = section.find("temperature")) {
    setup.temperature = section.as<double>("temperature", *temperature, "a number");
  }
  setup.sides.push_back(read_side(claim, "subject", section.require("subject", "the model that the claim is about")));
  if (claim.effect != Effect::value) {
    setup.sides.push_back(
        read_side(claim, "baseline", section.require("baseline", "the model that it is compared with")));
  }
  section.refuse_others();
  for (const Side& side : setup.sides) {
    if (side.way == 1 && setup.votes == 0) section.fail(section.line(), "self-consistency has no votes", "votes = 20");
  }
  return setup;
}

// One record's answer in one way.
struct Answered {
  std::string label;
  double confidence = 0, correct = 0, metric = 0;
};

class Evaluations {
 public:
  explicit Evaluations(const TrackContext& context) : context_(context) {}

  /// In the order of tasks and records.
  std::vector<Answered> answers(const Claim& claim, const Setup& setup, const Side& side, std::uint64_t seed,
                                TrackOutcome& outcome) {
    const fs::path folder = evaluated(setup, side.variant, seed);
    std::vector<Answered> out;
    for (const std::string& unit : units_of(folder)) {
      const std::string file = sample_file(unit);
      std::istringstream lines(read_file(folder / file));
      for (std::string line; std::getline(lines, line);) {
        out.push_back(answered(claim, side, unit, parse_json(line, (folder / file).string())));
      }
      add_artifact(folder / file, outcome);
    }
    add_artifact(folder / "results.json", outcome);
    return out;
  }

 private:
  fs::path evaluated(const Setup& setup, const ModelVariant& variant, std::uint64_t seed) {
    std::string name = variant.name();
    for (const std::string& task : setup.tasks) name += "_" + task;
    name += fmt::format("_{}_{}_{}_{}", setup.limit, setup.votes, setup.temperature, seed);
    if (setup.training) {
      name = fmt::format("{}_{}_trained_{}_{}", kDiffusion, setup.mc_samples, name, training_id(*setup.training));
    }
    const fs::path folder = context_.bundle / "records" / "X" / name;
    std::error_code ignored;
    if (fs::exists(folder / "results.json", ignored)) return folder;
    EvaluateOptions options;
    options.model = setup.training ? trained(*setup.training, variant) : prepare_variant(variant, context_.scratch);
    options.tasks = setup.tasks;
    options.limit = setup.limit, options.votes = setup.votes;
    if (setup.training) options.mc_samples = setup.mc_samples;
    options.temperature = setup.temperature, options.seed = seed;
    options.out = folder;
    options.runtime = runtime_of(variant, context_.runtime);
    const TalkScope talk(false);
    const EvaluateResult result = evaluate(options);
    context_.log(fmt::format("  {}: {} requests", name, result.requests));
    return folder;
  }

  // Of all that [setup.training] says.
  static std::string training_id(const TrainOptions& training) {
    std::string said = fmt::format("{} {} {} {}", training.steps, training.batch_size, training.seqlen, training.seed);
    for (const fs::path& text : training.texts) said += " " + sha256_file(text);
    return sha256_hex(said).substr(0, 8);
  }

  fs::path trained(TrainOptions training, const ModelVariant& variant) const {
    training.out = context_.scratch / fmt::format("{}-{}", variant.name(), training_id(training));
    if (fs::exists(training.out / "model.safetensors")) return training.out;
    training.config = variant.model / "config.json", training.tokenizer = variant.model;
    training.threads = context_.runtime.threads;
    const TalkScope talk(false);
    const TrainReport report = context_.train(training, nullptr);
    context_.log(
        fmt::format("  trained on {} tokens in {:.0f} s: {:.3f} nats", report.tokens, report.seconds, report.loss));
    return training.out;
  }

  // Tasks and subtasks in the order in which they were asked.
  static std::vector<std::string> units_of(const fs::path& folder) {
    const Json results = read_json(folder / "results.json");
    std::vector<std::string> out;
    for (const auto& [name, row] : results.at("results").at("results").items()) out.push_back(name);
    return out;
  }

  static std::string sample_file(const std::string& unit) {
    std::string name = "samples_" + unit + ".jsonl";
    for (char& c : name) c = c == '/' || c == '\\' || c == ' ' ? '_' : c;
    return name;
  }

  static Answered answered(const Claim& claim, const Side& side, const std::string& unit, const Json& line) {
    Answered out;
    out.label = fmt::format("{} {}", unit, line.at("doc_id").dump());
    if (claim.metric == "acc" || claim.metric == "acc_norm") {
      const auto metric = line.find(claim.metric + ",none");
      if (metric == line.end()) {
        throw Error(ErrorCode::unsupported, fmt::format("the task {} has no metric {}", unit, claim.metric),
                    "another metric or task");
      }
      out.metric = metric->get<double>();
      return out;
    }
    if (!line.contains("confidence") || !line.at("target").is_number()) {
      throw Error(ErrorCode::unsupported, "the task " + unit + " is no question with one right one of several answers",
                  "another task, or the metric acc");
    }
    const Json& answer = line.at("confidence").at(side.way);
    const auto choice = answer.at("choice").get<std::size_t>();
    out.confidence = answer.at("probabilities").at(choice).get<double>();
    out.correct = out.metric = choice == line.at("target").get<std::size_t>() ? 1 : 0;
    return out;
  }

  void add_artifact(const fs::path& file, TrackOutcome& outcome) const {
    const std::string path = fs::relative(file, context_.bundle).generic_string();
    const bool listed = std::any_of(outcome.artifacts.begin(), outcome.artifacts.end(),
                                    [&](const Artifact& artifact) { return artifact.path == path; });
    if (!listed) outcome.artifacts.push_back({path, {}});
  }

  const TrackContext& context_;
};

void add_samples(const Claim& claim, const std::vector<std::vector<Answered>>& sides, const std::string& suffix,
                 TrackOutcome& outcome) {
  for (std::size_t i = 0; i < sides[0].size(); ++i) {
    const Answered& subject = sides[0][i];
    // Of several seeds, a record is one cluster.
    ClaimSample sample{subject.label + suffix, static_cast<std::int64_t>(i), {}};
    if (is_confidence_metric(claim.metric)) {
      sample.values = {{"confidence", subject.confidence}, {"correct", subject.correct}};
    } else if (claim.effect == Effect::value) {
      sample.values = {{"value", subject.metric}};
    } else {
      sample.values = {{"subject", subject.metric}, {"baseline", sides[1].at(i).metric}};
    }
    outcome.samples.push_back(std::move(sample));
  }
}

}  // namespace

void check_external(const Claim& claim) {
  constexpr std::array kMetrics = {"accuracy", "acc", "acc_norm"};
  const bool known =
      is_confidence_metric(claim.metric) || std::find(kMetrics.begin(), kMetrics.end(), claim.metric) != kMetrics.end();
  if (!known) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: track X has no metric \"{}\"", claim.file.string(), claim.metric),
                "accuracy, acc, acc_norm, ece_equal_width, ece_equal_mass, brier, auroc, aurc or confident_wrong_0.8");
  }
  read_setup(claim);
}

void run_external(std::span<const TrackJob> jobs, const TrackContext& context) {
  Evaluations evaluations(context);
  for (const TrackJob& job : jobs) {
    const Claim& claim = *job.claim;
    const Setup setup = read_setup(claim);
    TrackOutcome outcome;
    if (setup.training && context.train == nullptr) {
      outcome.not_run = "its model is trained first, and this is kedge without libtorch: kedge-torch verify runs it";
      outcome.missing_subject = true;
      context.done(job, std::move(outcome));
      continue;
    }
    const std::vector<std::uint64_t> seeds = job.size.seeds.empty() ? std::vector<std::uint64_t>{0} : job.size.seeds;
    for (const std::uint64_t seed : seeds) {
      std::vector<std::vector<Answered>> sides;
      for (const Side& side : setup.sides) {
        sides.push_back(evaluations.answers(claim, setup, side, seed, outcome));
      }
      add_samples(claim, sides, job.size.seeds.empty() ? "" : fmt::format(", seed {}", seed), outcome);
    }
    for (const Side& side : setup.sides) outcome.inputs.push_back(record_input("model", side.variant.model));
    for (const fs::path& text : setup.training ? setup.training->texts : std::vector<fs::path>{}) {
      outcome.inputs.push_back(record_input("text", text));
    }
    context.done(job, std::move(outcome));
  }
}

}  // namespace kedge
