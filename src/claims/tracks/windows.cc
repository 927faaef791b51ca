#include "claims/tracks/windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/interrupt.h"
#include "base/json.h"
#include "claims/environment.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr auto kPause = std::chrono::milliseconds(500);

void run_window(WindowJob& job, std::int64_t window) {
  const std::int64_t passes = job.job->size.n / job.job->size.windows;
  for (std::int64_t p = 0; p < passes; ++p) {
    throw_if_interrupted();
    const std::vector<double> values = job.pass();
    ClaimSample sample{fmt::format("window {}, pass {}", window + 1, p + 1), window, {}};
    if (values.size() == 1)
      sample.values = {{"value", values[0]}};
    else
      sample.values = {{"subject", values.at(0)}, {"baseline", values.at(1)}};
    job.outcome.samples.push_back(std::move(sample));
  }
}

}  // namespace

void check_windows(const Claim& claim) {
  for (const ClaimSize* size : {&claim.full, &claim.quick}) {
    if (size->windows >= 3 && size->n >= 10) continue;
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: {} passes in {} windows are timed", claim.file.string(), size->n, size->windows),
                "n = 10 or more in 3 windows or more");
  }
}

void run_windows(std::span<WindowJob> jobs, const TrackContext& context) {
  std::vector<Json> states(jobs.size(), Json::array());
  std::int64_t windows = 0;
  for (const WindowJob& job : jobs) windows = std::max(windows, job.job->size.windows);
  for (std::int64_t window = 0; window < windows; ++window) {
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      if (window >= jobs[i].job->size.windows) continue;
      run_window(jobs[i], window);
      const Json state = machine_state();
      states[i].push_back({{"window", window + 1},
                           {"time", state.at("time")},
                           {"load_average", state.at("load_average")},
                           {"frequency_mhz", state.at("frequency_mhz")},
                           {"temperature_c", state.at("temperature_c")}});
    }
    context.log(fmt::format("  window {} of {}", window + 1, windows));
    std::this_thread::sleep_for(kPause);
  }
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].states = states[i].dump();
}

}  // namespace kedge
