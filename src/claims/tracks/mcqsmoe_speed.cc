// Tracks P, PS and DB of the layer that routes by reconstruction error: tokens per second of the rows of
// kedge bench mcqsmoe (random weights), alone (P), against another row (PS), or against a dense layer (DB).
//
// [setup.subject] row: "serial", "parallel", "zero-copy", "workspace", "small", "large"; [setup.baseline] row, or
// dense: "stored" (as many stored parameters), "active" (as many floating-point operations per token). Metric:
// tokens_per_second. Subject and baseline take turns; a sample is a tenth of a second of each, in windows as of the
// subject "decoder".
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "base/interrupt.h"
#include "base/json.h"
#include "base/toml_section.h"
#include "bench/mcqsmoe.h"
#include "bench/rate.h"
#include "claims/environment.h"
#include "claims/tracks/rows.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr auto kPause = std::chrono::milliseconds(500);
constexpr std::uint64_t kSeed = 1;

McqsMoeCase find_case(const std::string& name) {
  for (McqsMoeCase& c : mcqsmoe_cases()) {
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
          c, kind == "stored" ? dense_of_stored(layer(c), c) : dense_of_active(layer(c), c),
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
      layer = std::make_unique<McqsMoeLayer>(c.spec, AnchorForm::split, load_, kSeed);
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

struct Timing {
  const TrackJob* job = nullptr;
  Setup setup;
  std::vector<std::function<void()>> sides;
  TrackOutcome outcome;
  Json windows = Json::array();
};

void measure_window(Timing& timing, std::int64_t window) {
  const std::int64_t passes = timing.job->size.n / timing.job->size.windows;
  const auto tokens = static_cast<double>(timing.setup.subject.tokens);
  for (std::int64_t p = 0; p < passes; ++p) {
    std::vector<double> values;
    for (const auto& side : timing.sides) values.push_back(tokens / seconds_of_call(side));
    ClaimSample sample{fmt::format("window {}, pass {}", window + 1, p + 1), window, {}};
    if (values.size() == 1)
      sample.values = {{"value", values[0]}};
    else
      sample.values = {{"subject", values[0]}, {"baseline", values[1]}};
    timing.outcome.samples.push_back(std::move(sample));
  }
  timing.windows.push_back(machine_state());
}

}  // namespace

void check_mcqsmoe_speed(const Claim& claim) {
  const std::string file = claim.file.string();
  if (claim.metric != "tokens_per_second") {
    throw Error(ErrorCode::bad_file, fmt::format("{}: track {} has no metric \"{}\"", file, claim.track, claim.metric),
                "tokens_per_second");
  }
  for (const ClaimSize* size : {&claim.full, &claim.quick}) {
    if (size->windows < 3 || size->n < 10) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: {} passes in {} windows are timed", file, size->n, size->windows),
                  "n = 10 or more in 3 windows or more");
    }
  }
  if ((claim.effect != Effect::value) != (claim.track != "P")) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: effect is \"{}\" in track {}", file, effect_name(claim.effect), claim.track),
                "\"value\" in track P, a comparison in PS and DB");
  }
  read_setup(claim);
}

void run_mcqsmoe_speed(std::span<const TrackJob> jobs, const TrackContext& context) {
  Garage garage(context);
  std::vector<Timing> timings;
  std::int64_t windows = 0;
  for (const TrackJob& job : jobs) {
    Timing timing{&job, read_setup(*job.claim), {}, {}, Json::array()};
    timing.sides.push_back(garage.row(timing.setup.subject));
    if (job.claim->track == "PS") timing.sides.push_back(garage.row(find_case(timing.setup.baseline)));
    if (job.claim->track == "DB") timing.sides.push_back(garage.dense(timing.setup.subject, timing.setup.baseline));
    for (const auto& side : timing.sides) side();  // not counted: pages and caches are cold
    timings.push_back(std::move(timing));
    windows = std::max(windows, job.size.windows);
  }
  for (std::int64_t window = 0; window < windows; ++window) {
    for (Timing& timing : timings) {
      throw_if_interrupted();
      if (window < timing.job->size.windows) measure_window(timing, window);
    }
    context.log(fmt::format("  window {} of {}", window + 1, windows));
    std::this_thread::sleep_for(kPause);
  }
  for (Timing& timing : timings) {
    timing.outcome.details = Json{
        {"threads", garage.threads()},
        {"row", timing.setup.subject.name},
        {"tokens", timing.setup.subject.tokens},
        {"windows",
         timing.windows}}.dump();
    context.done(*timing.job, std::move(timing.outcome));
  }
}

}  // namespace kedge
