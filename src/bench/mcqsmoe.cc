#include "bench/mcqsmoe.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/rng.h"
#include "bench/rate.h"
#include "kedge/error.h"
#include "kernels/swiglu/activation.h"

namespace kedge {
namespace {

constexpr std::int64_t kGroup = 64;

std::vector<float> uniform(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(rng.uniform() - 0.5);
  return x;
}

AnchorDelta random_stack(std::int64_t experts, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  return encode_anchor_delta(uniform(experts * rows * cols, seed), experts, rows, cols,
                             {DType::f16, 4, kGroup, Manifold::sphere}, {}, "random weights");
}

LoadOptions load_options(const McqsMoeBenchOptions& o) {
  return {parse_isa(o.runtime.isa), parse_numerics(o.runtime.numerics), parse_activations(o.runtime.activations)};
}

PackedWeight pack_dense(std::int64_t n, std::int64_t k, DenseWeights weights, const LoadOptions& load) {
  if (weights == DenseWeights::fp32) {
    const std::vector<float> values = uniform(n * k, 7);
    return pack_weight(TensorView{DType::f32, {n, k}, reinterpret_cast<const std::byte*>(values.data())}, load);
  }
  return pack_weight(quantize_rtn(uniform(n * k, 7), n, k, {4, true, QuantStrategy::group, kGroup}, DType::f16), load);
}

/// Hidden units of a dense layer, in whole groups: `weights` of them in its two matrices.
std::int64_t dense_size(double weights, std::int64_t d) {
  const double groups = weights / (2.0 * static_cast<double>(d * kGroup));
  return kGroup * std::max<std::int64_t>(1, std::llround(groups));
}

}  // namespace

std::vector<McqsMoeCase> mcqsmoe_cases(std::int64_t tokens) {
  ReconstructionMoe medium;
  medium.router.hidden_size = 1024;
  medium.router.bottleneck = 128;
  medium.router.num_experts = 8;
  medium.router.num_experts_per_tok = 2;
  medium.output = ExpertOutput::ffn;
  medium.intermediate_size = 4096;
  ReconstructionMoe small = medium;
  small.router.hidden_size = 256;
  small.router.bottleneck = 64;
  small.router.num_experts = 16;
  small.output = ExpertOutput::reconstruction;
  small.intermediate_size = 0;
  ReconstructionMoe large = small;
  large.router.hidden_size = 512;
  large.router.bottleneck = 128;
  large.router.num_experts = 32;
  const auto or_papers = [&](std::int64_t papers) { return tokens > 0 ? tokens : papers; };
  return {{"serial", medium, or_papers(32), false, ExpertRows::copied, false},
          {"parallel", medium, or_papers(32), true, ExpertRows::copied, false},
          {"zero-copy", medium, or_papers(32), true, ExpertRows::in_place, false},
          {"workspace", medium, or_papers(32), true, ExpertRows::copied, true},
          {"small", small, or_papers(32), true, ExpertRows::in_place, true},
          {"large", large, or_papers(64), true, ExpertRows::in_place, true}};
}

McqsMoeLayer::McqsMoeLayer(const ReconstructionMoe& spec, AnchorForm form, const LoadOptions& load, std::uint64_t seed)
    : spec_(spec) {
  const std::int64_t d = spec.router.hidden_size, experts = spec.router.num_experts;
  const AnchorDelta encoder = random_stack(experts, spec.router.bottleneck, d, seed);
  std::optional<AnchorDelta> up, down;
  ReconstructionMoeWeights weights;
  weights.encoder.shared = &encoder;
  if (spec.output == ExpertOutput::ffn) {
    up = random_stack(experts, spec.intermediate_size, d, seed + 1);
    down = random_stack(experts, d, spec.intermediate_size, seed + 2);
    weights.up.shared = &*up;
    weights.down.shared = &*down;
  }
  block_ = ReconstructionMoeBlock::load(spec, weights, form, load);
  router_ = ReconstructionRouter::load(spec.router, weights.encoder, {}, form, load);
}

std::int64_t McqsMoeLayer::parameters() const noexcept {
  const std::int64_t d = spec_.router.hidden_size, experts = spec_.router.num_experts;
  return experts * d * (spec_.router.bottleneck + 2 * spec_.intermediate_size);
}

double McqsMoeLayer::active_flops(std::int64_t tokens) const noexcept {
  const std::int64_t d = spec_.router.hidden_size, r = spec_.router.bottleneck, k = spec_.router.slots();
  const std::int64_t routing = spec_.router.num_experts * (d * r + r * r);
  const std::int64_t expert = spec_.output == ExpertOutput::ffn ? 2 * d * spec_.intermediate_size : d * r;
  return 2.0 * static_cast<double>(tokens * (routing + k * expert));
}

McqsMoeSubject::McqsMoeSubject(const McqsMoeCase& c, const McqsMoeLayer& layer, int threads, std::uint64_t seed)
    : case_(c),
      layer_(layer),
      pool_(c.all_threads ? threads : 1),
      arena_(std::make_unique<Arena>()),
      x_(uniform(c.tokens * c.spec.router.hidden_size, seed + 10)),
      y_(x_.size()) {}

void McqsMoeSubject::batch() {
  if (!case_.keep_scratch) arena_ = std::make_unique<Arena>();
  layer_.block().forward({pool_, *arena_}, 0, x_.data(), case_.tokens, y_.data(), nullptr, case_.rows);
}

void McqsMoeSubject::routing() {
  if (!case_.keep_scratch) arena_ = std::make_unique<Arena>();
  ArenaScope scope(*arena_);
  layer_.router().route({pool_, *arena_}, x_.data(), case_.tokens);
}

std::int64_t dense_of_stored(const McqsMoeLayer& layer, const McqsMoeCase& c) noexcept {
  return dense_size(static_cast<double>(layer.parameters()), c.spec.router.hidden_size);
}

std::int64_t dense_of_active(const McqsMoeLayer& layer, const McqsMoeCase& c) noexcept {
  return dense_size(layer.active_flops(1) / 2, c.spec.router.hidden_size);
}

McqsMoeDenseLayer::McqsMoeDenseLayer(const McqsMoeCase& c, std::int64_t intermediate_size, DenseWeights weights,
                                     int threads, const LoadOptions& load)
    : d_(c.spec.router.hidden_size),
      f_(intermediate_size),
      tokens_(c.tokens),
      isa_(load.isa),
      up_(pack_dense(f_, d_, weights, load)),
      down_(pack_dense(d_, f_, weights, load)),
      pool_(threads),
      x_(uniform(tokens_ * d_, 3)),
      y_(x_.size()) {}

void McqsMoeDenseLayer::batch() {
  const ExecContext ctx{pool_, arena_};
  ArenaScope scope(arena_);
  float* h = arena_.take<float>(tokens_ * f_);
  gemm(ctx, x_.data(), d_, tokens_, up_, h, f_);
  activation(ctx, FfnActivation::gelu, h, f_, tokens_, f_, h, f_, isa_);
  gemm(ctx, h, f_, tokens_, down_, y_.data(), d_);
}

namespace {

McqsMoeDense describe_dense(const McqsMoeCase& c, std::int64_t intermediate_size) {
  McqsMoeDense dense;
  dense.intermediate_size = intermediate_size;
  dense.parameters = 2 * c.spec.router.hidden_size * intermediate_size;
  dense.flops = 2 * static_cast<double>(c.tokens) * static_cast<double>(dense.parameters);
  return dense;
}

McqsMoeBenchRow describe_row(const McqsMoeCase& c, const McqsMoeLayer& layer, int threads) {
  const ErrorRouterSpec& router = c.spec.router;
  McqsMoeBenchRow row;
  row.name = c.name;
  row.output = expert_output_name(c.spec.output);
  row.hidden_size = router.hidden_size;
  row.bottleneck = router.bottleneck;
  row.intermediate_size = c.spec.intermediate_size;
  row.num_experts = router.num_experts;
  row.num_experts_per_tok = router.num_experts_per_tok;
  row.tokens = c.tokens;
  row.threads = threads;
  row.parameters = layer.parameters();
  row.weight_bytes = layer.block().num_bytes();
  const LayerFlops flops = layer.block().flops(c.tokens);
  row.routing_flops = static_cast<double>(flops.routing);
  row.expert_flops = static_cast<double>(flops.experts);
  row.active_flops = layer.active_flops(c.tokens);
  row.stored = describe_dense(c, dense_of_stored(layer, c));
  row.active = describe_dense(c, dense_of_active(layer, c));
  row.active_fp32 = row.active;
  return row;
}

}  // namespace

McqsMoeBenchRow measure_case(const McqsMoeCase& c, const McqsMoeLayer& layer, const McqsMoeBenchOptions& options) {
  McqsMoeSubject subject(c, layer, options.runtime.threads, options.seed);
  McqsMoeSubject alone(c, layer, 1, options.seed);
  McqsMoeBenchRow row = describe_row(c, layer, subject.threads());
  const LoadOptions load = load_options(options);
  McqsMoeDenseLayer stored(c, row.stored.intermediate_size, DenseWeights::int4, row.threads, load);
  McqsMoeDenseLayer active(c, row.active.intermediate_size, DenseWeights::int4, row.threads, load);
  McqsMoeDenseLayer active_fp32(c, row.active.intermediate_size, DenseWeights::fp32, row.threads, load);
  subject.batch();
  alone.batch();
  stored.batch();
  active.batch();
  active_fp32.batch();
  const auto rate_of = [&](const auto& call) { return static_cast<double>(c.tokens) / seconds_of_call(call); };
  std::vector<double> own, one_thread, routing, of_stored, of_active, of_active_fp32;
  for (int r = 0; r < options.repetitions; ++r) {
    own.push_back(rate_of([&] { subject.batch(); }));
    one_thread.push_back(row.threads == 1 ? own.back() : rate_of([&] { alone.batch(); }));
    routing.push_back(rate_of([&] { subject.routing(); }));
    of_stored.push_back(rate_of([&] { stored.batch(); }));
    of_active.push_back(rate_of([&] { active.batch(); }));
    of_active_fp32.push_back(rate_of([&] { active_fp32.batch(); }));
  }
  row.rate = make_rate(std::move(own));
  row.one_thread = make_rate(std::move(one_thread));
  row.routing_share = row.rate.median / make_rate(std::move(routing)).median;
  row.stored.rate = make_rate(std::move(of_stored));
  row.active.rate = make_rate(std::move(of_active));
  row.active_fp32.rate = make_rate(std::move(of_active_fp32));
  return row;
}

McqsMoeBenchReport bench_mcqsmoe(const McqsMoeBenchOptions& options) {
  if (options.repetitions < 1) {
    throw Error(ErrorCode::usage, "repetitions is " + std::to_string(options.repetitions), "at least 1");
  }
  if (options.tokens < 0) {
    throw Error(ErrorCode::usage, "tokens is " + std::to_string(options.tokens), "0 or more");
  }
  const AnchorForm form = parse_anchor_form(options.form);
  const LoadOptions load = load_options(options);
  McqsMoeBenchReport report;
  report.options = options;
  report.isa = isa_name(load.isa);
  report.has_limits = options.limits;
  if (options.limits) {
    note("measuring the machine's limits");
    report.limits = measure_limits(options.runtime);
  }
  std::unique_ptr<McqsMoeLayer> layer;
  std::int64_t width = 0;
  for (const McqsMoeCase& c : mcqsmoe_cases(options.tokens)) {
    if (layer == nullptr || width != c.spec.router.hidden_size) {
      layer = std::make_unique<McqsMoeLayer>(c.spec, form, load, options.seed);
      width = c.spec.router.hidden_size;
    }
    note("measuring " + c.name);
    report.rows.push_back(measure_case(c, *layer, options));
  }
  return report;
}

}  // namespace kedge
