// The machine's limits (kedge/bench.h), with the parts that tests choose.
#pragma once

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "kedge/bench.h"

namespace kedge {

struct LimitOptions {
  Isa isa = Isa::scalar;
  std::uint64_t buffer_bytes = 0;  ///< rounded down to 4096 per thread
  double seconds = 0.15;           ///< per arithmetic figure, at least
  int passes = 3;                  ///< over the buffer
};

MachineLimits measure_limits(ThreadPool& threads, const LimitOptions& options);
/// 2 GiB, or a quarter of the memory that is free now where that is less.
std::uint64_t default_limit_buffer();

}  // namespace kedge
