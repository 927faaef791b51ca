#include "bench/limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "base/interrupt.h"
#include "bench/limit_kernels.h"
#include "tensor/tensor.h"

namespace kedge {
namespace {

struct Row {
  Isa isa;
  const LimitKernels* kernels;
};

constexpr Row kRows[] = {
    {Isa::avx512_vnni, &limits_avx512vnni},
    {Isa::avx512, &limits_avx512},
    {Isa::avx2, &limits_avx2},
    {Isa::scalar, &limits_scalar},
};

const LimitKernels& kernels_for(Isa isa) noexcept {
  for (const Row& row : kRows) {
    if (row.isa <= isa) return *row.kernels;
  }
  return limits_scalar;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of fn(i) for i in [0, workers), each on a thread of its own, all at once.
template <class F>
double time_together(ThreadPool& threads, int workers, F&& fn) {
  std::atomic<int> arrived{0};
  const double begin = now();
  threads.parallel_for(workers, 1, [&](std::int64_t i, std::int64_t, int) {
    // Waiting for each other keeps one thread from taking two shares.
    arrived.fetch_add(1);
    while (arrived.load() < workers) std::this_thread::yield();
    fn(static_cast<int>(i));
  });
  return now() - begin;
}

/// Results go here so that the loops have a purpose.
struct alignas(64) Sink {
  std::uint64_t value = 0;
};

/// Operations per second in units of 1e9: the best of slices of about 20 ms.
template <class Kernel>
double arithmetic_peak(ThreadPool& threads, int workers, Kernel kernel, double per_round, double seconds) {
  std::vector<Sink> sinks(static_cast<std::size_t>(workers));
  const auto run = [&](std::int64_t rounds) {
    return time_together(threads, workers, [&](int i) {
      sinks[static_cast<std::size_t>(i)].value += static_cast<std::uint64_t>(static_cast<std::int64_t>(kernel(rounds)));
    });
  };
  std::int64_t rounds = 1 << 12;
  while (run(rounds) < 0.02 && rounds < (std::int64_t{1} << 40)) rounds *= 2;
  double best = 0;
  const double end = now() + seconds;
  do {
    throw_if_interrupted();
    best = std::max(best, static_cast<double>(rounds) * per_round * workers / run(rounds));
  } while (now() < end);
  std::uint64_t all = 0;
  for (const Sink& sink : sinks) all += sink.value;
  return all == 1 ? 0 : best * 1e-9;  // never 1: the sums are large or negative
}

double read_peak(ThreadPool& threads, int workers, const LimitKernels& kernels, const Buffer& buffer, int passes) {
  std::vector<Sink> sinks(static_cast<std::size_t>(workers));
  const auto* data = reinterpret_cast<const unsigned char*>(buffer.data());
  const auto share = static_cast<std::int64_t>(buffer.size()) / workers / 4096 * 4096;
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    throw_if_interrupted();
    const double seconds = time_together(threads, workers, [&](int i) {
      sinks[static_cast<std::size_t>(i)].value ^= kernels.read(data + i * share, share);
    });
    best = std::max(best, static_cast<double>(share) * workers / seconds);
  }
  return best * 1e-9;
}

}  // namespace

std::uint64_t default_limit_buffer() {
  const auto free = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_AVPHYS_PAGES))) *
                    static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return std::clamp<std::uint64_t>(free / 4, std::uint64_t{1} << 24, std::uint64_t{1} << 31);
}

MachineLimits measure_limits(ThreadPool& threads, const LimitOptions& options) {
  const LimitKernels& kernels = kernels_for(options.isa);
  MachineLimits limits;
  limits.isa = isa_name(options.isa);
  limits.threads = threads.size();
  limits.int8_instruction = kernels.int8_instruction;
  limits.fp32_one = arithmetic_peak(threads, 1, kernels.fp32, kernels.fp32_per_round, options.seconds);
  limits.fp32_all = arithmetic_peak(threads, threads.size(), kernels.fp32, kernels.fp32_per_round, options.seconds);
  if (kernels.int8 != nullptr) {
    limits.int8_one = arithmetic_peak(threads, 1, kernels.int8, kernels.int8_per_round, options.seconds);
    limits.int8_all = arithmetic_peak(threads, threads.size(), kernels.int8, kernels.int8_per_round, options.seconds);
  }
  Buffer buffer(options.buffer_bytes);
  limits.dram_buffer_bytes = buffer.size();
  const auto bytes = static_cast<std::int64_t>(buffer.size());
  // Untouched pages all read from one page of zeros: write them first.
  threads.parallel_for(bytes, std::int64_t{1} << 24, [&](std::int64_t begin, std::int64_t end, int) {
    std::memset(buffer.data() + begin, 1, static_cast<std::size_t>(end - begin));
  });
  limits.dram_read_one = read_peak(threads, 1, kernels, buffer, options.passes);
  limits.dram_read_all = read_peak(threads, threads.size(), kernels, buffer, options.passes);
  return limits;
}

MachineLimits measure_limits(const RuntimeOptions& runtime) {
  ThreadPool threads(runtime.threads);
  LimitOptions options;
  options.isa = parse_isa(runtime.isa);
  options.buffer_bytes = default_limit_buffer();
  return measure_limits(threads, options);
}

}  // namespace kedge
