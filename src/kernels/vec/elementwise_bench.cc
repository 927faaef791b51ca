// Elementwise ops at the shapes of a decoder layer of hidden size 2048: elements per second.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/softmax/softmax.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/topk/topk.h"

namespace kedge {
namespace {

constexpr std::int64_t kRows = 64, kSize = 2048;

struct Setup {
  ThreadPool threads{1};
  Arena scratch;
  std::vector<float> x = std::vector<float>(kRows * kSize, 0.5f), y = x;
};

void count(benchmark::State& state, std::int64_t elements) {
  state.counters["elements/s"] =
      benchmark::Counter(static_cast<double>(elements), benchmark::Counter::kIsIterationInvariantRate);
}

void bench_rmsnorm(benchmark::State& state) {
  Setup s;
  for (auto _ : state) {
    rmsnorm({s.threads, s.scratch}, s.x.data(), kSize, kRows, kSize, s.x.data(), 1e-5f, s.y.data(), kSize,
            static_cast<Isa>(state.range(0)));
    benchmark::DoNotOptimize(s.y.data());
  }
  count(state, kRows * kSize);
}

void bench_silu(benchmark::State& state) {
  Setup s;
  for (auto _ : state) {
    gated_activation({s.threads, s.scratch}, FfnActivation::silu, s.x.data(), kSize, s.x.data(), kSize, kRows, kSize,
                     s.y.data(), kSize, static_cast<Isa>(state.range(0)));
    benchmark::DoNotOptimize(s.y.data());
  }
  count(state, kRows * kSize);
}

void bench_softmax(benchmark::State& state) {
  Setup s;
  for (auto _ : state) {
    softmax(s.y.data(), kRows, kSize, static_cast<Isa>(state.range(0)));
    benchmark::DoNotOptimize(s.y.data());
  }
  count(state, kRows * kSize);
}

void bench_topk(benchmark::State& state) {
  std::vector<float> scores(128);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i * 37 % 128);
  std::int32_t ids[8];
  for (auto _ : state) {
    topk(scores.data(), 128, 8, ids);
    benchmark::DoNotOptimize(ids);
  }
  count(state, 128);
}

void each_isa(benchmark::internal::Benchmark* b) {
  for (Isa isa : available_isas()) b->Arg(static_cast<int>(isa));
}

BENCHMARK(bench_rmsnorm)->Apply(each_isa);
BENCHMARK(bench_silu)->Apply(each_isa);
BENCHMARK(bench_softmax)->Apply(each_isa);
BENCHMARK(bench_topk);

}  // namespace
}  // namespace kedge
