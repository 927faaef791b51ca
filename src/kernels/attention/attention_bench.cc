// Attention at the shapes of OLMoE (16 heads of 128) and Qwen3-30B-A3B (32 over 4): FLOP/s of the visible part.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/attention/attention.h"

namespace kedge {
namespace {

void run(benchmark::State& state) {
  const std::int64_t heads = state.range(0), kv_heads = state.range(1), tokens = state.range(2), start = state.range(3);
  const std::int64_t dim = 128, length = start + tokens;
  ThreadPool pool(static_cast<int>(state.range(4)));
  Arena scratch;
  const std::vector<float> q(static_cast<std::size_t>(tokens * heads * dim), 0.01f);
  const std::vector<float> k(static_cast<std::size_t>(kv_heads * length * dim), 0.02f), v = k;
  std::vector<float> out(q.size());
  for (auto _ : state) {
    attention({pool, scratch}, {heads, kv_heads, dim, dim, 0.1f, 0}, q.data(), tokens, start, k.data(), v.data(),
              length, out.data(), detect_isa());
    benchmark::DoNotOptimize(out.data());
  }
  const double pairs =
      static_cast<double>(tokens) * static_cast<double>(start) + 0.5 * static_cast<double>(tokens * (tokens + 1));
  state.counters["FLOP/s"] =
      benchmark::Counter(4.0 * dim * static_cast<double>(heads) * pairs, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["KV bytes/s"] = benchmark::Counter(8.0 * dim * static_cast<double>(kv_heads * length),
                                                    benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(run)
    ->Name("attention")
    ->ArgNames({"heads", "kv", "tokens", "start", "threads"})
    ->UseRealTime()
    ->Args({16, 16, 512, 0, 1})
    ->Args({16, 16, 512, 0, 2})
    ->Args({16, 16, 2048, 0, 2})
    ->Args({32, 4, 512, 0, 2})
    ->Args({16, 16, 1, 512, 1})
    ->Args({16, 16, 1, 4096, 2})
    ->Args({32, 4, 1, 4096, 2});

}  // namespace
}  // namespace kedge
