// Median and range of timings.
#pragma once

#include <vector>

#include "kedge/bench.h"

namespace kedge {

double bench_now();  ///< seconds of a steady clock
BenchRate make_rate(std::vector<double> samples);

}  // namespace kedge
