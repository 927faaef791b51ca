// Median and range of timings.
#pragma once

#include <vector>

#include "base/interrupt.h"
#include "kedge/bench.h"

namespace kedge {

double bench_now();  ///< seconds of a steady clock
BenchRate make_rate(std::vector<double> samples);

/// Seconds of one call: the mean of as many as take a tenth of a second. Calls throw_if_interrupted() first.
template <class F>
double seconds_of_call(const F& call) {
  throw_if_interrupted();
  const double begin = bench_now();
  int calls = 0;
  double end = begin;
  do {
    call();
    ++calls;
    end = bench_now();
  } while (end - begin < 0.1);
  return (end - begin) / calls;
}

}  // namespace kedge
