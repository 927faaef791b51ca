#include "kedge/bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <variant>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/rng.h"
#include "bench/limits.h"
#include "bench/shapes.h"
#include "bench/work.h"
#include "kedge/error.h"
#include "model/decoder.h"

namespace kedge {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void validate(const BenchOptions& o) {
  if (o.model.empty() == o.shape.empty()) {
    throw Error(ErrorCode::usage,
                o.model.empty() ? "there is no model to measure" : "a model and a shape are both given",
                "a model directory or --shape");
  }
  if (o.prefill < 0 || o.decode < 0 || o.prefill + o.decode == 0) {
    throw Error(ErrorCode::usage, fmt::format("prefill is {} and decode is {}", o.prefill, o.decode),
                "numbers of tokens, at least one of them above 0");
  }
  if (o.batch < 1 || o.repetitions < 1) {
    throw Error(ErrorCode::usage, fmt::format("batch is {} and repetitions is {}", o.batch, o.repetitions),
                "at least 1");
  }
}

DecoderModel make_model(const BenchOptions& o, const LoadOptions& load, ThreadPool& threads) {
  if (!o.shape.empty()) return DecoderModel::random(shape_spec(o.shape), o.scheme, o.seed, load, threads);
  return DecoderModel::load(Checkpoint::open(o.model), load, threads);
}

/// Whether the products with linears other than the router run on integers.
bool runs_on_int8(const BenchOptions& o, const LoadOptions& load) {
  if (load.activations != Activations::int8) return false;
  if (o.shape.empty()) return !Checkpoint::open(o.model).quant_format().empty();
  return o.scheme != "bf16" && o.scheme != "f32";
}

std::uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

BenchRate rate(std::vector<double> samples) {
  BenchRate r;
  r.samples = samples;
  if (samples.empty()) return r;
  std::sort(samples.begin(), samples.end());
  const std::size_t middle = samples.size() / 2;
  r.median = samples.size() % 2 == 1 ? samples[middle] : 0.5 * (samples[middle - 1] + samples[middle]);
  r.lowest = samples.front();
  r.highest = samples.back();
  return r;
}

/// One sequence of random tokens, prefilled and then continued with other random tokens: which expert a token goes to
/// depends on it, and a model left to choose its own tokens may end in a loop over few experts.
class Run {
 public:
  Run(const DecoderModel& model, const BenchOptions& options, ThreadPool& threads)
      : model_(model), options_(options), threads_(threads),
        state_(model.spec(), std::max<std::int64_t>(options.prefill, 1) + options.decode),
        logits_(static_cast<std::size_t>(model.spec().vocab_size)) {
    Rng rng(options.seed);
    tokens_.resize(static_cast<std::size_t>(state_.capacity()));
    for (std::int32_t& token : tokens_) {
      token = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(model.spec().vocab_size)));
    }
  }

  /// Seconds of prefill and decode.
  std::pair<double, double> once() {
    state_.truncate(0);
    const std::int64_t prompt = std::max<std::int64_t>(options_.prefill, 1);
    double begin = now();
    for (std::int64_t at = 0; at < prompt; at += options_.batch) forward(at, std::min(options_.batch, prompt - at));
    const double prefill = now() - begin;
    begin = now();
    for (std::int64_t i = 0; i < options_.decode; ++i) forward(prompt + i, 1);
    return {prefill, now() - begin};
  }

 private:
  void forward(std::int64_t at, std::int64_t count) {
    throw_if_interrupted();
    const Segment segment{&state_,
                          std::span(tokens_).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count))};
    const ExecContext ctx{threads_, scratch_};
    model_.forward(ctx, {&segment, 1}, LogitRows::last_of_each_segment, logits_.data());
  }

  const DecoderModel& model_;
  const BenchOptions& options_;
  ThreadPool& threads_;
  SequenceState state_;
  Arena scratch_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> logits_;
};

}  // namespace

BenchReport bench(const BenchOptions& options) {
  validate(options);
  const LoadOptions load{parse_isa(options.runtime.isa), parse_numerics(options.runtime.numerics),
                         parse_activations(options.runtime.activations)};
  if (!options.shape.empty()) shape_spec(options.shape);  // a wrong name should not cost the limits' seconds
  ThreadPool threads(options.runtime.threads);
  BenchReport report;
  report.options = options;
  report.isa = isa_name(load.isa);
  report.threads = threads.size();
  if (options.limits) {
    note("measuring the machine's limits");
    LimitOptions limit;
    limit.isa = load.isa;
    limit.buffer_bytes = default_limit_buffer();
    report.limits = measure_limits(threads, limit);
    report.has_limits = true;
  }

  double begin = now();
  const DecoderModel model = make_model(options, load, threads);
  report.load_seconds = now() - begin;
  const std::int64_t context = std::max<std::int64_t>(options.prefill, 1) + options.decode;
  if (context > model.spec().max_position_embeddings) {
    throw Error(ErrorCode::usage, fmt::format("prefill and decode are {} tokens together", context),
                fmt::format("at most {}, the model's context", model.spec().max_position_embeddings));
  }
  if (options.explain) note(model.explain());
  report.model_type = model.spec().model_type;
  report.weight_bytes = model.num_bytes();
  report.active_bytes = model.active_bytes_per_token();
  report.products_per_token = products_per_token(model.spec());
  report.int8 = runs_on_int8(options, load);

  Run run(model, options, threads);
  run.once();
  std::vector<double> prefill, decode;
  for (int r = 0; r < options.repetitions; ++r) {
    const auto [prefill_seconds, decode_seconds] = run.once();
    if (options.prefill > 0) prefill.push_back(static_cast<double>(options.prefill) / prefill_seconds);
    if (options.decode > 0) decode.push_back(static_cast<double>(options.decode) / decode_seconds);
  }
  report.prefill = rate(std::move(prefill));
  report.decode = rate(std::move(decode));
  report.peak_memory_bytes = peak_memory();
  return report;
}

}  // namespace kedge
