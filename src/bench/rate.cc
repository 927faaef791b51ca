#include "bench/rate.h"

#include <algorithm>
#include <chrono>

namespace kedge {

double bench_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

BenchRate make_rate(std::vector<double> samples) {
  BenchRate r;
  r.samples = samples;
  if (samples.empty()) return r;
  std::sort(samples.begin(), samples.end());
  const std::size_t middle = samples.size() / 2;
  r.median = samples.size() % 2 == 1 ? samples[middle] : 0.5 * (samples[middle - 1] + samples[middle]);
  r.lowest = samples.front();
  r.highest = samples.back();
  return r;
}

}  // namespace kedge
