#include "kedge/bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "base/cpu.h"
#include "base/exec.h"
#include "base/log.h"
#include "bench/rate.h"
#include "bench/shapes.h"
#include "bench/subject.h"
#include "kedge/error.h"

namespace kedge {
namespace {

void validate(const BenchOptions& o) {
  if (o.model.empty() == o.shape.empty()) {
    throw Error(ErrorCode::usage,
                o.model.empty() ? "there is no model to measure" : "a model and a shape are both given",
                "a model directory or --shape");
  }
  if (o.prefill < 0 || o.decode < 0 || o.prefill + o.decode == 0) {
    throw Error(ErrorCode::usage, fmt::format("prefill is {} and decode is {}", o.prefill, o.decode),
                "numbers of tokens, at least one of them above 0");
  }
  if (o.batch < 1 || o.repetitions < 1) {
    throw Error(ErrorCode::usage, fmt::format("batch is {} and repetitions is {}", o.batch, o.repetitions),
                "at least 1");
  }
}

std::uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace

BenchReport bench(const BenchOptions& options) {
  validate(options);
  parse_isa(options.runtime.isa);
  parse_numerics(options.runtime.numerics);
  parse_activations(options.runtime.activations);
  if (!options.shape.empty()) shape_spec(options.shape);  // a wrong name should not cost the limits' seconds
  MachineLimits limits;
  if (options.limits) {
    note("measuring the machine's limits");
    limits = measure_limits(options.runtime);
  }

  BenchSubject subject(options);
  if (options.explain) note(subject.explain());
  BenchReport report = subject.describe();
  report.has_limits = options.limits;
  report.limits = limits;
  subject.once();
  std::vector<double> prefill, decode;
  for (int r = 0; r < options.repetitions; ++r) {
    const auto [prefill_seconds, decode_seconds] = subject.once();
    if (options.prefill > 0) prefill.push_back(static_cast<double>(options.prefill) / prefill_seconds);
    if (options.decode > 0) decode.push_back(static_cast<double>(options.decode) / decode_seconds);
  }
  report.prefill = make_rate(std::move(prefill));
  report.decode = make_rate(std::move(decode));
  report.peak_memory_bytes = peak_memory();
  return report;
}

}  // namespace kedge
