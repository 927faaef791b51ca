// The factor of GPTQ at a layer's width: FLOP/s, counting n^3 / 3 multiply-adds (Cholesky and triangular inverse).
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/cholesky/cholesky.h"

namespace kedge {
namespace {

void run(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  Arena scratch;
  std::vector<float> h(static_cast<std::size_t>(n * n), 0.5f);
  for (std::int64_t i = 0; i < n; ++i) h[i * n + i] = 2.0f;
  for (auto _ : state) {
    std::vector<float> u = h;
    if (!gptq_factor({pool, scratch}, detect_isa(), n, u.data(), n)) state.SkipWithError("not positive definite");
    benchmark::DoNotOptimize(u.data());
  }
  const double size = static_cast<double>(n);
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 / 3.0 * size * size * size, benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(run)->Name("gptq_factor")->ArgNames({"n", "threads"})->UseRealTime()->ArgsProduct({{1024, 2048}, {1, 2}});

}  // namespace
}  // namespace kedge
