// The medium layer of the MCQSMoE papers (d 1024, r 128, ff 4096, E 8, k 2, two-matrix GELU), int4 deltas in groups of
// 64 on an fp16 anchor, sphere rows: microseconds per batch of the layer and of its routing alone, by form, threads and
// tokens.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "base/rng.h"
#include "moe/reconstruction_moe.h"

namespace kedge {
namespace {

constexpr std::int64_t kHidden = 1024, kSize = 4096, kBottleneck = 128, kExperts = 8;

std::vector<float> uniform(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = static_cast<float>(rng.uniform() - 0.5);
  return x;
}

AnchorDelta encode(std::int64_t rows, std::int64_t cols) {
  return encode_anchor_delta(uniform(kExperts * rows * cols, 1), kExperts, rows, cols,
                             {DType::f16, 4, 64, Manifold::sphere}, {}, "bench");
}

struct Weights {
  AnchorDelta encoder = encode(kBottleneck, kHidden), up = encode(kSize, kHidden), down = encode(kHidden, kSize);
};

ReconstructionMoe spec() {
  ReconstructionMoe spec;
  spec.router.hidden_size = kHidden;
  spec.router.bottleneck = kBottleneck;
  spec.router.num_experts = kExperts;
  spec.router.num_experts_per_tok = 2;
  spec.output = ExpertOutput::ffn;
  spec.intermediate_size = kSize;
  return spec;
}

void layer(benchmark::State& state, AnchorForm form, bool routing_alone) {
  static const Weights weights;
  const LoadOptions options{detect_isa(), Numerics::consistent, Activations::fp32};
  const std::int64_t tokens = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  Arena arena;
  const std::vector<float> x = uniform(tokens * kHidden, 2);
  std::vector<float> y(x.size());
  const ReconstructionMoeWeights views{{{}, &weights.encoder}, {}, {}, {{}, &weights.up}, {{}, &weights.down}};
  const auto block = ReconstructionMoeBlock::load(spec(), views, form, options);
  const auto router = ReconstructionRouter::load(spec().router, views.encoder, {}, form, options);
  for (auto _ : state) {
    if (routing_alone) {
      ArenaScope scope(arena);
      benchmark::DoNotOptimize(router.route({pool, arena}, x.data(), tokens));
    } else {
      block.forward({pool, arena}, 0, x.data(), tokens, y.data());
    }
  }
  const LayerFlops flops = block.flops(tokens);
  const auto done = static_cast<double>(routing_alone ? flops.routing : flops.routing + flops.experts);
  state.counters["FLOP/s"] =
      benchmark::Counter(done * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["MB"] = static_cast<double>(routing_alone ? router.num_bytes() : block.num_bytes()) / 1e6;
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->Unit(benchmark::kMicrosecond)->UseRealTime();
  for (const int threads : {1, 2}) {
    for (const int tokens : {1, 32}) bench->Args({tokens, threads});
  }
}

BENCHMARK_CAPTURE(layer, fused, AnchorForm::fused, false)->Apply(sizes);
BENCHMARK_CAPTURE(layer, split, AnchorForm::split, false)->Apply(sizes);
BENCHMARK_CAPTURE(layer, decoded, AnchorForm::decoded, false)->Apply(sizes);
BENCHMARK_CAPTURE(layer, routing_split, AnchorForm::split, true)->Apply(sizes);
BENCHMARK_CAPTURE(layer, routing_decoded, AnchorForm::decoded, true)->Apply(sizes);

}  // namespace
}  // namespace kedge
