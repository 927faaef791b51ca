// Tracks P, PS and DB of the layer that routes by reconstruction error: tokens per second of the rows of
// kedge bench mcqsmoe (random weights), alone (P), against another row (PS), or against a dense layer (DB).
//
// [setup.subject] row: "serial", "parallel", "zero-copy", "workspace", "small", "large"; [setup.baseline] row, or
// dense: "stored" (as many stored parameters), "active" (as many floating-point operations per token). Metric:
// tokens_per_second. Subject and baseline take turns; a sample is a tenth of a second of each, in windows as of the
// subject "decoder".
#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>

#include "base/json.h"
#include "base/toml_section.h"
#include "bench/mcqsmoe.h"
#include "bench/rate.h"
#include "claims/tracks/rows.h"
#include "claims/tracks/windows.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::uint64_t kSeed = 1;

McqsMoeCase find_case(const std::string& name) {
  for (McqsMoeCase& c : mcqsmoe_cases(0)) {
    if (c.name == name) return std::move(c);
  }
  throw Error(ErrorCode::bad_file, "kedge bench mcqsmoe has no row \"" + name + "\"",
              "serial, parallel, zero-copy, workspace, small or large");
}

struct Setup {
  McqsMoeCase subject;
  std::string baseline;  ///< a row's name; or "stored", "active"; empty: none
};

Setup read_setup(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  Setup setup;
  TomlSection subject(claim.file, "[setup.subject]", section.require("subject", "the row that the claim is about"));
  setup.subject = find_case(subject.as<std::string>("row", subject.require("row", "of kedge bench mcqsmoe"), "a text"));
  subject.refuse_others();
  if (claim.effect != Effect::value) {
    TomlSection baseline(claim.file, "[setup.baseline]",
                         section.require("baseline", "the row or dense layer that it is compared with"));
    const char* key = claim.track == "DB" ? "dense" : "row";
    const TomlValue& value = baseline.require(key, claim.track == "DB" ? "stored or active" : "of kedge bench mcqsmoe");
    setup.baseline = baseline.as<std::string>(key, value, "a text");
    if (claim.track != "DB") {
      find_case(setup.baseline);
    } else if (setup.baseline != "stored" && setup.baseline != "active") {
      baseline.fail(value.line, "there is no dense layer \"" + setup.baseline + "\"", "stored or active");
    }
    baseline.refuse_others();
  }
  section.refuse_others();
  return setup;
}

/// Layers that several claims time are made once.
class Garage {
 public:
  explicit Garage(const TrackContext& context)
      : context_(context),
        load_{parse_isa(context.runtime.isa), parse_numerics(context.runtime.numerics),
              parse_activations(context.runtime.activations)},
        threads_(ThreadPool(context.runtime.threads).size()) {}

  std::function<void()> row(const McqsMoeCase& c) {
    auto& subject = subjects_[c.name];
    if (subject == nullptr) subject = std::make_unique<McqsMoeSubject>(c, layer(c), threads_, kSeed);
    return [&s = *subject] { s.batch(); };
  }
  std::function<void()> dense(const McqsMoeCase& c, const std::string& kind) {
    auto& dense = dense_[c.name + " " + kind];
    if (dense == nullptr) {
      dense = std::make_unique<McqsMoeDenseLayer>(
          c, kind == "stored" ? dense_of_stored(layer(c), c) : dense_of_active(layer(c), c), DenseWeights::int4,
          c.all_threads ? threads_ : 1, load_);
    }
    return [&d = *dense] { d.batch(); };
  }
  int threads() const noexcept { return threads_; }

 private:
  const McqsMoeLayer& layer(const McqsMoeCase& c) {
    auto& layer = layers_[c.spec.router.hidden_size];
    if (layer == nullptr) {
      context_.log(fmt::format("  a layer of width {}", c.spec.router.hidden_size));
      layer = std::make_unique<McqsMoeLayer>(c.spec, AnchorForm::fused, load_, kSeed);
    }
    return *layer;
  }

  const TrackContext& context_;
  LoadOptions load_;
  int threads_;
  std::map<std::int64_t, std::unique_ptr<McqsMoeLayer>> layers_;
  std::map<std::string, std::unique_ptr<McqsMoeSubject>> subjects_;
  std::map<std::string, std::unique_ptr<McqsMoeDenseLayer>> dense_;
};

}  // namespace

void check_mcqsmoe_speed(const Claim& claim) {
  const std::string file = claim.file.string();
  if (claim.metric != "tokens_per_second") {
    throw Error(ErrorCode::bad_file, fmt::format("{}: track {} has no metric \"{}\"", file, claim.track, claim.metric),
                "tokens_per_second");
  }
  check_windows(claim);
  if ((claim.effect != Effect::value) != (claim.track != "P")) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: effect is \"{}\" in track {}", file, effect_name(claim.effect), claim.track),
                "\"value\" in track P, a comparison in PS and DB");
  }
  read_setup(claim);
}

void run_mcqsmoe_speed(std::span<const TrackJob> jobs, const TrackContext& context) {
  Garage garage(context);
  std::vector<WindowJob> timings;
  std::vector<McqsMoeCase> rows;
  for (const TrackJob& job : jobs) {
    const Setup setup = read_setup(*job.claim);
    struct Side {
      std::function<void()> batch;
      std::int64_t tokens;
    };
    std::vector<Side> sides{{garage.row(setup.subject), setup.subject.tokens}};
    if (job.claim->track == "PS") {
      const McqsMoeCase baseline = find_case(setup.baseline);
      sides.push_back({garage.row(baseline), baseline.tokens});
    }
    if (job.claim->track == "DB") sides.push_back({garage.dense(setup.subject, setup.baseline), setup.subject.tokens});
    for (const Side& side : sides) side.batch();  // not counted: pages and caches are cold
    timings.push_back({&job,
                       [sides] {
                         std::vector<double> values;
                         for (const Side& side : sides) {
                           values.push_back(static_cast<double>(side.tokens) / seconds_of_call(side.batch));
                         }
                         return values;
                       },
                       {}});
    rows.push_back(setup.subject);
  }
  run_windows(timings, context);
  for (std::size_t i = 0; i < timings.size(); ++i) {
    timings[i].outcome.details = Json{{"threads", garage.threads()},
                                      {"row", rows[i].name},
                                      {"tokens", rows[i].tokens},
                                      {"windows", Json::parse(timings[i].states)}}
                                     .dump();
    context.done(*timings[i].job, std::move(timings[i].outcome));
  }
}

}  // namespace kedge
