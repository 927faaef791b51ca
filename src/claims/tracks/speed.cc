// Tracks P and PS: how fast, beside the machine's own limits (P), and against another model, other activations or other
// threads (PS), in pairs that take turns.
//
// [setup] prefill, decode, batch; [setup.subject] and [setup.baseline]: model or shape, scheme, method, activations,
// threads; a pass is of the subject, or of subject and baseline (claims/tracks/windows.h). Metrics:
//   prefill_tokens_per_second, decode_tokens_per_second
//   prefill_share_of_peak       multiply-adds with weights, over the measured peak of their arithmetic
//   decode_share_of_bandwidth   bytes of weights read, over the measured bandwidth
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "base/interrupt.h"
#include "base/json.h"
#include "base/toml_section.h"
#include "bench/subject.h"
#include "claims/tracks/model_variant.h"
#include "claims/tracks/rows.h"
#include "claims/tracks/windows.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::array kMetrics = {"prefill_tokens_per_second", "decode_tokens_per_second", "prefill_share_of_peak",
                                 "decode_share_of_bandwidth"};

struct Setup {
  std::int64_t prefill = 256, decode = 32, batch = 512;
  std::vector<ModelVariant> sides;
};

Setup read_setup(const Claim& claim) {
  TomlSection section(claim.file, "[setup]", claim.setup);
  Setup setup;
  setup.prefill = section.integer("prefill", setup.prefill, 1);
  setup.decode = section.integer("decode", setup.decode, 1);
  setup.batch = section.integer("batch", setup.batch, 1);
  setup.sides.push_back(
      read_variant(claim.file, "[setup.subject]", section.require("subject", "the model that the claim is about")));
  if (claim.effect != Effect::value) {
    setup.sides.push_back(read_variant(claim.file, "[setup.baseline]",
                                       section.require("baseline", "the model that it is compared with")));
  }
  section.refuse_others();
  return setup;
}

// Models that several claims time are loaded once.
class Garage {
 public:
  explicit Garage(const TrackContext& context) : context_(context) {}

  BenchSubject& subject(const Setup& setup, const ModelVariant& variant) {
    const std::string key = fmt::format("{} {} {} {}", variant.name(), setup.prefill, setup.decode, setup.batch);
    auto at = subjects_.find(key);
    if (at != subjects_.end()) return at->second;
    BenchOptions options;
    options.model = variant.shape.empty() ? prepare_variant(variant, context_.scratch) : std::filesystem::path();
    options.shape = variant.shape;
    if (!variant.scheme.empty()) options.scheme = variant.scheme;
    options.prefill = setup.prefill, options.decode = setup.decode, options.batch = setup.batch;
    options.runtime = runtime_of(variant, context_.runtime);
    context_.log("  loading " + key);
    at = subjects_.emplace(key, BenchSubject(options)).first;
    at->second.once();  // not counted: pages, branch predictors and caches are cold
    return at->second;
  }

 private:
  const TrackContext& context_;
  std::map<std::string, BenchSubject> subjects_;
};

double metric_of(const std::string& metric, const BenchReport& facts, std::pair<double, double> seconds) {
  BenchReport report = facts;
  report.prefill.median = static_cast<double>(facts.options.prefill) / seconds.first;
  report.decode.median = static_cast<double>(facts.options.decode) / seconds.second;
  if (metric == "prefill_tokens_per_second") return report.prefill.median;
  if (metric == "decode_tokens_per_second") return report.decode.median;
  if (metric == "prefill_share_of_peak") return report.prefill.median / report.prefill_limit();
  return report.decode.median / report.decode_limit();
}

/// One claim's models, and what was measured so far.
struct Timing {
  Setup setup;
  std::vector<BenchReport> facts;                  ///< of the sides, with the limits
  std::vector<std::pair<double, double>> seconds;  ///< of all prefills and all decodings, by side
};

std::vector<double> measure_pass(Timing& timing, const std::string& metric, Garage& garage) {
  std::vector<double> values;
  for (std::size_t s = 0; s < timing.setup.sides.size(); ++s) {
    throw_if_interrupted();
    const auto seconds = garage.subject(timing.setup, timing.setup.sides[s]).once();
    values.push_back(metric_of(metric, timing.facts[s], seconds));
    timing.seconds[s].first += seconds.first, timing.seconds[s].second += seconds.second;
  }
  return values;
}

Json limits_json(const MachineLimits& limits) {
  return {{"threads", limits.threads},
          {"dram_read_gb_per_s", limits.dram_read_all},
          {"fp32_gflop_per_s", limits.fp32_all},
          {"int8_gop_per_s", limits.int8_all}};
}

// Limits for each number of threads, measured when they are first needed.
const MachineLimits& limits_for(int threads, const RuntimeOptions& runtime, std::map<int, MachineLimits>& known) {
  const auto at = known.find(threads);
  if (at != known.end()) return at->second;
  RuntimeOptions options = runtime;
  options.threads = threads;
  return known[threads] = measure_limits(options);
}

Timing prepare(const TrackJob& job, const TrackContext& context, Garage& garage, std::map<int, MachineLimits>& limits) {
  Timing timing;
  timing.setup = read_setup(*job.claim);
  for (const ModelVariant& variant : timing.setup.sides) {
    BenchReport facts = garage.subject(timing.setup, variant).describe();
    facts.limits = limits_for(facts.threads, context.runtime, limits);
    facts.has_limits = true;
    timing.facts.push_back(std::move(facts));
    timing.seconds.emplace_back(0, 0);
  }
  return timing;
}

// What a side did over all passes, beside what the machine can do.
Json side_json(const Timing& timing, std::size_t s, std::size_t samples) {
  BenchReport report = timing.facts[s];
  const auto passes = static_cast<double>(samples);
  report.prefill.median = passes * static_cast<double>(report.options.prefill) / timing.seconds[s].first;
  report.decode.median = passes * static_cast<double>(report.options.decode) / timing.seconds[s].second;
  return {{"name", timing.setup.sides[s].name()},
          {"threads", report.threads},
          {"isa", report.isa},
          {"int8", report.int8},
          {"weight_bytes", report.weight_bytes},
          {"active_bytes_per_token", report.active_bytes},
          {"products_per_token", report.products_per_token},
          {"prefill_tokens_per_second", report.prefill.median},
          {"prefill_limit_tokens_per_second", report.prefill_limit()},
          {"prefill_gop_per_second", report.prefill_gigaops()},
          {"decode_tokens_per_second", report.decode.median},
          {"decode_limit_tokens_per_second", report.decode_limit()},
          {"decode_gb_per_second", report.decode_gigabytes()}};
}

Json details_of(const Timing& timing, const WindowJob& job) {
  Json sides = Json::array();
  for (std::size_t s = 0; s < timing.facts.size(); ++s)
    sides.push_back(side_json(timing, s, job.outcome.samples.size()));
  return {{"limits", limits_json(timing.facts[0].limits)},
          {"sides", std::move(sides)},
          {"windows", Json::parse(job.states)}};
}

}  // namespace

void check_speed(const Claim& claim) {
  const std::string file = claim.file.string();
  if (std::find(kMetrics.begin(), kMetrics.end(), claim.metric) == kMetrics.end()) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: track {} has no metric \"{}\"", file, claim.track, claim.metric),
                "prefill_tokens_per_second, decode_tokens_per_second, prefill_share_of_peak or "
                "decode_share_of_bandwidth");
  }
  check_windows(claim);
  const bool paired = claim.effect != Effect::value;
  if (paired != (claim.track == "PS")) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: effect is \"{}\" in track {}", file, effect_name(claim.effect), claim.track),
                "\"value\" in track P, a comparison in track PS");
  }
  read_setup(claim);
}

void run_speed(std::span<const TrackJob> jobs, const TrackContext& context) {
  Garage garage(context);
  std::map<int, MachineLimits> limits;
  std::vector<Timing> timings(jobs.size());
  std::vector<WindowJob> windows;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    timings[i] = prepare(jobs[i], context, garage, limits);
    windows.push_back({&jobs[i],
                       [&timing = timings[i], &metric = jobs[i].claim->metric, &garage] {
                         return measure_pass(timing, metric, garage);
                       },
                       {}});
    for (const ModelVariant& variant : timings[i].setup.sides) {
      if (!variant.model.empty()) windows[i].outcome.inputs.push_back(record_input("model", variant.model));
    }
  }
  run_windows(windows, context);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    windows[i].outcome.details = details_of(timings[i], windows[i]).dump();
    context.done(jobs[i], std::move(windows[i].outcome));
  }
}

}  // namespace kedge
