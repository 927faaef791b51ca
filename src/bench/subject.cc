#include "bench/subject.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

#include "base/interrupt.h"
#include "base/rng.h"
#include "bench/shapes.h"
#include "bench/work.h"
#include "kedge/error.h"
#include "model/decoder.h"

namespace kedge {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

std::int64_t prompt_of(const BenchOptions& o) { return std::max<std::int64_t>(o.prefill, 1); }

LoadOptions load_options(const BenchOptions& o) {
  return {parse_isa(o.runtime.isa), parse_numerics(o.runtime.numerics), parse_activations(o.runtime.activations)};
}

}  // namespace

struct BenchSubject::Impl {
  explicit Impl(const BenchOptions& o)
      : options(o),
        load(load_options(o)),
        threads(o.runtime.threads),
        begin(now()),
        model(make_model(o, load, threads)),
        load_seconds(now() - begin) {
    const std::int64_t context = prompt_of(o) + o.decode;
    if (context > model.spec().max_position_embeddings) {
      throw Error(ErrorCode::usage, fmt::format("prefill and decode are {} tokens together", context),
                  fmt::format("at most {}, the model's context", model.spec().max_position_embeddings));
    }
    state = std::make_unique<SequenceState>(model.spec(), context);
    logits.resize(static_cast<std::size_t>(model.spec().vocab_size));
    Rng rng(o.seed);
    tokens.resize(static_cast<std::size_t>(state->capacity()));
    for (std::int32_t& token : tokens) {
      token = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(model.spec().vocab_size)));
    }
  }

  void forward(std::int64_t at, std::int64_t count) {
    throw_if_interrupted();
    const Segment segment{state.get(),
                          std::span(tokens).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count))};
    const ExecContext ctx{threads, scratch};
    model.forward(ctx, {&segment, 1}, LogitRows::last_of_each_segment, logits.data());
  }

  BenchOptions options;
  LoadOptions load;
  ThreadPool threads;
  double begin;
  DecoderModel model;
  double load_seconds;
  std::unique_ptr<SequenceState> state;
  Arena scratch;
  std::vector<std::int32_t> tokens;
  std::vector<float> logits;
};

BenchSubject::BenchSubject(const BenchOptions& options) : impl_(std::make_unique<Impl>(options)) {}
BenchSubject::~BenchSubject() = default;
BenchSubject::BenchSubject(BenchSubject&&) noexcept = default;

std::pair<double, double> BenchSubject::once() {
  const BenchOptions& o = impl_->options;
  impl_->state->truncate(0);
  const std::int64_t prompt = prompt_of(o);
  double begin = now();
  for (std::int64_t at = 0; at < prompt; at += o.batch) impl_->forward(at, std::min(o.batch, prompt - at));
  const double prefill = now() - begin;
  begin = now();
  for (std::int64_t i = 0; i < o.decode; ++i) impl_->forward(prompt + i, 1);
  return {prefill, now() - begin};
}

BenchReport BenchSubject::describe() const {
  BenchReport report;
  report.options = impl_->options;
  report.isa = isa_name(impl_->load.isa);
  report.threads = impl_->threads.size();
  report.load_seconds = impl_->load_seconds;
  report.model_type = impl_->model.spec().model_type;
  report.weight_bytes = impl_->model.num_bytes();
  report.active_bytes = impl_->model.active_bytes_per_token();
  report.products_per_token = products_per_token(impl_->model.spec());
  report.int8 = runs_on_int8(impl_->options, impl_->load);
  return report;
}

std::string BenchSubject::explain() const { return impl_->model.explain(); }

}  // namespace kedge
