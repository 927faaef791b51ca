// The Hessian of a layer of 2048 inputs, and those of 64 experts with few tokens each: FLOP/s of the upper triangle.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/gram/gram.h"

namespace kedge {
namespace {

void run(benchmark::State& state) {
  const std::int64_t n = state.range(0), rows = state.range(1), jobs = state.range(2);
  ThreadPool pool(static_cast<int>(state.range(3)));
  const Isa isa = static_cast<Isa>(state.range(4));
  Arena scratch;
  const std::vector<float> x(static_cast<std::size_t>(n * rows), 0.01f), w(static_cast<std::size_t>(rows), 0.5f);
  const std::vector<float> zeros(static_cast<std::size_t>(n * n));
  std::vector<std::vector<float>> g(static_cast<std::size_t>(jobs), zeros);
  std::vector<GramJob> list;
  for (auto& out : g) list.push_back({x.data(), n, nullptr, 0, w.data(), nullptr, rows, n, 0, out.data(), n});
  for (auto _ : state) {
    gram({pool, scratch}, isa, list);
    benchmark::DoNotOptimize(g.data());
  }
  state.counters["FLOP/s"] = benchmark::Counter(static_cast<double>(jobs * rows * n) * static_cast<double>(n + 1),
                                                benchmark::Counter::kIsIterationInvariantRate);
}

void cases(benchmark::internal::Benchmark* b) {
  for (Isa isa : available_isas()) {
    if (isa == Isa::scalar || isa == Isa::avx512_vnni) continue;  // minutes; the same row as avx512
    for (int threads : {1, 2}) b->Args({2048, 2048, 1, threads, static_cast<int>(isa)});
    b->Args({2048, 128, 16, 2, static_cast<int>(isa)});
  }
}

BENCHMARK(run)->Name("gram")->ArgNames({"n", "rows", "jobs", "threads", "isa"})->UseRealTime()->Apply(cases);

}  // namespace
}  // namespace kedge
