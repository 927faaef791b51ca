// Speed is measured in windows: separated stretches of n / windows passes of a claim. Between two windows of a claim
// stand those of the other claims and a pause, so that windows meet different states of the machine and are what the
// interval is taken over.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "claims/tracks.h"

namespace kedge {

/// Error(bad_file) where fewer than ten passes or three windows are registered.
void check_windows(const Claim& claim);

/// What is timed of one claim, in turns; outcome is filled by run_windows.
struct WindowJob {
  const TrackJob* job = nullptr;
  std::function<std::vector<double>()> pass;  ///< the value of the subject, and of the baseline where there is one
  TrackOutcome outcome;
  std::string states = "[]";  ///< JSON: time, load, frequency and temperature after each window
};
/// A sample per pass, its window as cluster. Calls throw_if_interrupted() before each pass.
void run_windows(std::span<WindowJob> jobs, const TrackContext& context);

}  // namespace kedge
