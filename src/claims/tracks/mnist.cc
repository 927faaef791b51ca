// Tracks X and P of the MNIST networks: what quantization and sparsity do to them, by the runs of kedge mnist report.
//
// [setup] epochs; P also batch and rounds; [setup.subject] and [setup.baseline]: network (a variant of
// claims/mnist_runs.h), scheme ("fp32" or one of kedge quantize). The images come with --data: they are not in the
// repository. Metrics:
//   X  test_accuracy, test_loss, file_bytes   one sample per seed, subject and baseline of the same seed
//   P  seconds                                of a pass of `batch` images, the networks of the first seed in turn; a
//                                             sample is the median of `rounds` passes
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>

#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "base/toml_section.h"
#include "claims/mnist_runs.h"
#include "claims/tracks/rows.h"
#include "claims/tracks/windows.h"
#include "kedge/error.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kTimedSeed = 1;

struct MetricRow {
  const char* track;
  const char* name;
  const char* key;  ///< of a form in a run's record; null: timed
};
constexpr std::array<MetricRow, 4> kMetrics = {{
    {"X", "test_accuracy", "test_accuracy"},
    {"X", "test_loss", "test_loss"},
    {"X", "file_bytes", "bytes"},
    {"P", "seconds", nullptr},
}};

struct Side {
  const MnistVariant* variant = nullptr;
  MnistForm form;
  std::string name() const { return fmt::format("{} {}", variant->name, form.key()); }
};

struct Setup {
  std::int64_t epochs = 6, batch = 64, rounds = 100;
  std::vector<Side> sides;
};

const MetricRow& metric_row(const Claim& claim) {
  std::string names;
  for (const MetricRow& row : kMetrics) {
    if (claim.track != row.track) continue;
    if (claim.metric == row.name) return row;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::bad_file,
              fmt::format("{}: track {} of MNIST has no metric \"{}\"", claim.file.string(), claim.track, claim.metric),
              "one of " + names);
}

Side read_side(const Claim& claim, const char* name, const TomlValue& value) {
  TomlSection section(claim.file, fmt::format("[setup.{}]", name), value);
  const TomlValue& network = section.require("network", "ffn, moe or another variant");
  const auto wanted = section.as<std::string>("network", network, "a text");
  const MnistVariant* variant = find_mnist_variant(wanted);
  if (variant == nullptr) {
    section.fail(network.line, "there is no network \"" + wanted + "\"", "one of " + mnist_variant_names());
  }
  const TomlValue& scheme = section.require("scheme", "fp32, or one of kedge quantize");
  const auto key = section.as<std::string>("scheme", scheme, "a text");
  std::string known;
  for (const MnistForm& form : mnist_forms(*variant)) {
    if (form.key() == key) {
      section.refuse_others();
      return {variant, form};
    }
    known += (known.empty() ? "" : ", ") + form.key();
  }
  section.fail(scheme.line, fmt::format("{} is not measured as \"{}\"", wanted, key), "one of " + known);
}

Setup read_setup(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  Setup setup;
  setup.epochs = section.integer("epochs", setup.epochs, 1);
  if (claim.track == "P") {
    setup.batch = section.integer("batch", setup.batch, 1);
    setup.rounds = section.integer("rounds", setup.rounds, 1);
  }
  setup.sides.push_back(read_side(claim, "subject", section.require("subject", "the network the claim is about")));
  if (claim.effect != Effect::value) {
    setup.sides.push_back(
        read_side(claim, "baseline", section.require("baseline", "the network that it is compared with")));
  }
  section.refuse_others();
  return setup;
}

/// A training with all that is measured of it.
struct Wanted {
  const MnistVariant* variant;
  std::uint64_t seed;
  std::int64_t epochs;
  bool operator<(const Wanted& other) const {
    return std::tie(variant, seed, epochs) < std::tie(other.variant, other.seed, other.epochs);
  }
};

class Runs {
 public:
  explicit Runs(const TrackContext& context)
      : context_(context),
        data_{read_mnist(context.data, MnistPart::train), read_mnist(context.data, MnistPart::test)} {
    std::error_code error;
    fs::create_directories(folder(), error);
    if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder().string() + ": " + error.message());
  }

  /// Every run is computed once for all claims, each on one thread. with_models: the networks' files are needed too.
  void prepare(const std::set<Wanted>& wanted, bool with_models) {
    std::vector<Wanted> missing;
    for (const Wanted& run : wanted) {
      if (!results_.contains(run)) {
        if (auto results = read_mnist_record(file(run), config(run))) results_.emplace(run, std::move(*results));
      }
      const bool models = fs::exists(model(run, {"fp32", ""}));
      if (!results_.contains(run) || (with_models && !models)) missing.push_back(run);
    }
    std::vector<Json> results(missing.size());
    ThreadPool pool(context_.runtime.threads);
    pool.parallel_for(static_cast<std::int64_t>(missing.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        throw_if_interrupted();
        results[static_cast<std::size_t>(i)] = execute(missing[static_cast<std::size_t>(i)]);
      }
    });
    for (std::size_t i = 0; i < missing.size(); ++i) {
      const Wanted& run = missing[i];
      if (results_.contains(run)) continue;
      context_.log(fmt::format("  {} seed {}: test accuracy {} in fp32", run.variant->name, run.seed,
                               results[i].at("forms").at(0).at("test_accuracy").dump()));
      results_.emplace(run, std::move(results[i]));
    }
  }

  double value(const Wanted& run, const MnistForm& form, const char* key) const {
    for (const Json& line : results_.at(run).at("forms")) {
      const bool observer = line.at("observer").is_null() ? form.observer.empty() : line["observer"] == form.observer;
      if (line.at("scheme") == form.scheme && observer) return line.at(key).get<double>();
    }
    throw Error(ErrorCode::bad_file, file(run).string() + " has no form " + form.key(), "a run of kedge mnist report");
  }

  fs::path file(const Wanted& run) const {
    return folder() / fmt::format("{}_epochs{}.json", MnistRun{run.variant, run.seed}.stem(), run.epochs);
  }
  fs::path model(const Wanted& run, const MnistForm& form) const {
    return mnist_model_folder(options(run.epochs), {run.variant, run.seed}, form);
  }
  const MnistData& data() const { return data_; }
  void add_inputs(TrackOutcome& outcome) const {
    outcome.inputs.push_back({"train", context_.data.string(), data_.train.content_hash});
    outcome.inputs.push_back({"test", context_.data.string(), data_.test.content_hash});
  }

 private:
  fs::path folder() const { return context_.bundle / "records" / "mnist"; }
  MnistReportOptions options(std::int64_t epochs) const {
    MnistReportOptions out;
    out.data = context_.data, out.epochs = epochs;
    out.out = context_.scratch / fmt::format("epochs{}", epochs);
    return out;
  }
  Json config(const Wanted& run) const { return mnist_run_config(options(run.epochs), {run.variant, run.seed}, data_); }
  // A record that is there stays as it is: other claims' records carry its hash.
  Json execute(const Wanted& run) const {
    Json results = execute_mnist_run(options(run.epochs), {run.variant, run.seed}, data_, context_.train);
    if (!fs::exists(file(run))) {
      write_mnist_record(file(run), kMnistRunSchema, context_.data, data_, config(run), results);
    }
    return results;
  }

  const TrackContext& context_;
  MnistData data_;
  std::map<Wanted, Json> results_;
};

void measure_quality(std::span<const TrackJob> jobs, const TrackContext& context, Runs& runs) {
  std::set<Wanted> wanted;
  for (const TrackJob& job : jobs) {
    const Setup setup = read_setup(*job.claim);
    for (const std::uint64_t seed : job.size.seeds) {
      for (const Side& side : setup.sides) wanted.insert({side.variant, seed, setup.epochs});
    }
  }
  runs.prepare(wanted, /*with_models=*/false);
  for (const TrackJob& job : jobs) {
    const Setup setup = read_setup(*job.claim);
    const MetricRow& metric = metric_row(*job.claim);
    TrackOutcome outcome;
    std::set<std::string> files;
    for (const std::uint64_t seed : job.size.seeds) {
      std::vector<double> values;
      for (const Side& side : setup.sides) {
        const Wanted run{side.variant, seed, setup.epochs};
        values.push_back(runs.value(run, side.form, metric.key));
        files.insert(fs::relative(runs.file(run), context.bundle).generic_string());
      }
      ClaimSample sample{fmt::format("seed {}", seed), static_cast<std::int64_t>(seed), {}};
      if (values.size() == 1)
        sample.values = {{"value", values[0]}};
      else
        sample.values = {{"subject", values[0]}, {"baseline", values[1]}};
      outcome.samples.push_back(std::move(sample));
    }
    for (const std::string& path : files) outcome.artifacts.push_back({path, {}});
    runs.add_inputs(outcome);
    context.done(job, std::move(outcome));
  }
}

void measure_speed(std::span<const TrackJob> jobs, const TrackContext& context, Runs& runs) {
  std::set<Wanted> wanted;
  std::vector<Setup> setups;
  for (const TrackJob& job : jobs) {
    setups.push_back(read_setup(*job.claim));
    for (const Side& side : setups.back().sides) wanted.insert({side.variant, kTimedSeed, setups.back().epochs});
  }
  runs.prepare(wanted, /*with_models=*/true);
  std::vector<std::vector<Classifier>> networks(jobs.size());
  std::vector<WindowJob> timings;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    for (const Side& side : setups[i].sides) {
      const fs::path folder = runs.model({side.variant, kTimedSeed, setups[i].epochs}, side.form);
      networks[i].push_back(Classifier::open(folder, {.isa = parse_isa(context.runtime.isa)}));
    }
    timings.push_back({&jobs[i],
                       [&own = networks[i], &setup = setups[i], &runs] {
                         std::vector<const Classifier*> turns;
                         for (const Classifier& network : own) turns.push_back(&network);
                         std::vector<double> medians;
                         for (auto& seconds : time_in_turn(turns, runs.data().test, setup.batch, setup.rounds)) {
                           medians.push_back(quantile(std::move(seconds), 0.5));
                         }
                         return medians;
                       },
                       {}});
  }
  run_windows(timings, context);
  for (std::size_t i = 0; i < timings.size(); ++i) {
    Json sides = Json::array();
    for (const Side& side : setups[i].sides) sides.push_back(side.name());
    timings[i].outcome.details =
        Json{{"threads", 1}, {"batch", setups[i].batch}, {"sides", sides}, {"windows", Json::parse(timings[i].states)}}
            .dump();
    runs.add_inputs(timings[i].outcome);
    context.done(*timings[i].job, std::move(timings[i].outcome));
  }
}

}  // namespace

void check_mnist(const Claim& claim) {
  const MetricRow& metric = metric_row(claim);
  read_setup(claim);
  if (metric.key == nullptr) check_windows(claim);
  for (const ClaimSize* size : {&claim.full, &claim.quick}) {
    const auto seeds = static_cast<std::int64_t>(size->seeds.size());
    if (metric.key != nullptr && (seeds == 0 || size->n != seeds)) {
      throw Error(ErrorCode::bad_file, claim.file.string() + ": n is not the number of seeds",
                  "one sample per seed in each profile");
    }
  }
}

void run_mnist(std::span<const TrackJob> jobs, const TrackContext& context) {
  std::string reason;
  if (context.data.empty()) {
    reason = "MNIST is not in the repository: --data DIR names the folder with its four files";
  } else if (context.train == nullptr) {
    reason = "the networks are trained by gradients, and this is kedge without libtorch: kedge-torch verify runs it";
  }
  if (!reason.empty()) {
    for (const TrackJob& job : jobs) {
      TrackOutcome outcome;
      outcome.not_run = reason, outcome.missing_subject = true;
      context.done(job, std::move(outcome));
    }
    return;
  }
  Runs runs(context);
  std::vector<TrackJob> speed, quality;
  for (const TrackJob& job : jobs) (job.claim->track == "P" ? speed : quality).push_back(job);
  measure_quality(quality, context, runs);
  measure_speed(speed, context, runs);
}

}  // namespace kedge
