// Every row of the table: GFLOP/s (2 m n k per call) and GB/s of packed weights read. Weights of a decode run
// are a ring larger than the caches.  --benchmark_filter='avx512vnni.*m:1/'
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/gemm/jobs.h"
#include "kernels/gemm/layout.h"
#include "kernels/gemm/table.h"

namespace kedge {
namespace {

constexpr std::int64_t kN = 2048, kK = 2048;
constexpr std::size_t kRingBytes = std::size_t{600} << 20;

PackedWeight make_weight(WeightFormat format, std::int64_t group, const LoadOptions& options) {
  std::mt19937 engine(1);
  if (!is_affine(format)) {
    Tensor w(format == WeightFormat::f32 ? DType::f32 : format == WeightFormat::bf16 ? DType::bf16 : DType::f16, {kN, kK});
    std::vector<float> values(static_cast<std::size_t>(kN * kK));
    for (auto& v : values) {
      v = static_cast<float>(engine() % 2001) * 1e-3f - 1.0f;
    }
    convert_from_float(w.dtype(), values.data(), w.size(), w.data<std::byte>());
    return pack_weight(w.view(), options);
  }
  QuantTensor q;
  q.args.num_bits = format == WeightFormat::affine4 ? 4 : 8;
  q.args.group_size = group;
  q.rows = kN;
  q.cols = kK;
  q.codes.resize(static_cast<std::size_t>(kN * kK));
  for (auto& c : q.codes) {
    c = static_cast<std::uint8_t>(engine() & static_cast<unsigned>(q.args.max_code()));
  }
  q.scales.assign(static_cast<std::size_t>(kN * q.groups()), 0.015625f);
  return pack_weight(q, options);
}

void run(benchmark::State& state, const GemmRow& row, WeightFormat format, std::int64_t group, std::int64_t m,
         int threads) {
  const LoadOptions options{row.isa, Numerics::consistent, row.activations};
  std::vector<PackedWeight> ring;
  std::size_t bytes = 0;
  do {
    ring.push_back(make_weight(format, group, options));
    bytes += ring.back().num_bytes();
  } while (m <= 8 && bytes < kRingBytes && ring.size() < 64);
  ThreadPool pool(threads);
  Arena arena;
  std::vector<float> x(static_cast<std::size_t>(m * kK), 0.5f), y(static_cast<std::size_t>(m * kN));
  std::size_t next = 0;
  for (auto _ : state) {
    ArenaScope scope(arena);
    GemmJob job{};
    job.row = &row;
    job.w = weight_view(ring[next]);
    next = (next + 1) % ring.size();
    job.in = plan_rows(arena, row, job.w, {x.data(), kK, nullptr, m});
    job.y = y.data();
    job.ldy = kN;
    pack_all({pool, arena}, {&job.in, 1});
    run_all({pool, arena}, {&job, 1});
    benchmark::ClobberMemory();
  }
  const auto calls = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(calls * 2e-9 * static_cast<double>(m * kN * kK), benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(calls * 1e-9 * static_cast<double>(ring[0].num_bytes()), benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for (const GemmRow& row : gemm_table()) {
    if (row.isa == Isa::scalar || static_cast<int>(row.isa) > static_cast<int>(detect_isa())) {
      continue;
    }
    for (WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::f16, WeightFormat::affine4,
                                WeightFormat::affine8}) {
      if ((row.formats & format_bit(format)) == 0) {
        continue;
      }
      for (std::int64_t group : {32, 128}) {
        for (std::int64_t m : {1, 2, 4, 8, 16, 32, 128, 512}) {
          for (int threads : {1, 2}) {
            if (m > row.max_m || (!is_affine(format) && group != 32)) {
              continue;
            }
            const std::string name = std::string(row.name) + "/" + weight_format_name(format) +
                                     (is_affine(format) ? "-g" + std::to_string(group) : "") + "/m:" +
                                     std::to_string(m) + "/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), [&row, format, group, m, threads](benchmark::State& state) {
              run(state, row, format, group, m, threads);
            })->UseRealTime()->MinTime(0.1)->Unit(benchmark::kMicrosecond);
          }
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace kedge
