// GPTQ of one linear layer at OLMoE's shapes: weights per second, and FLOP/s of the error feedback.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/rng.h"
#include "kernels/gptq/gptq.h"

namespace kedge {
namespace {

void run(benchmark::State& state) {
  const std::int64_t rows = state.range(0), cols = state.range(1);
  ThreadPool pool(static_cast<int>(state.range(2)));
  Arena scratch;
  Rng rng(1);
  std::vector<float> weights(static_cast<std::size_t>(rows * cols)), u(static_cast<std::size_t>(cols * cols)), p = u;
  for (float& value : weights) value = static_cast<float>(0.02 * rng.normal());
  for (std::int64_t i = 0; i < cols; ++i) {
    for (std::int64_t j = i; j < cols; ++j) {
      u[i * cols + j] = i == j ? 1.0f : static_cast<float>(0.01 * rng.normal());
      p[i * cols + j] = i == j ? 0.0f : 0.001f;
    }
  }
  GptqInput in;
  in.weights = weights;
  in.rows = rows;
  in.cols = cols;
  in.factor = u.data();
  if (state.range(3) != 0) in.asymmetric = p.data();
  if (state.range(4) != 0) in.search.method = ScaleMethod::mse;
  for (auto _ : state) benchmark::DoNotOptimize(gptq({pool, scratch}, detect_isa(), in).error);
  state.counters["weights/s"] =
      benchmark::Counter(static_cast<double>(rows * cols), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["FLOP/s"] =
      benchmark::Counter(static_cast<double>(rows * cols) * static_cast<double>(cols) * (state.range(3) != 0 ? 2 : 1),
                         benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(run)
    ->Name("gptq")
    ->ArgNames({"rows", "cols", "threads", "gptaq", "mse"})
    ->UseRealTime()
    ->Args({1024, 2048, 1, 0, 0})
    ->Args({1024, 2048, 2, 0, 0})
    ->Args({2048, 2048, 2, 0, 0})
    ->Args({2048, 2048, 2, 1, 0})
    ->Args({2048, 2048, 2, 0, 1});

}  // namespace
}  // namespace kedge
