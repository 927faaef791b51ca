// The tracks: what can be measured, one row per kind of subject (claims/tracks/<row>.cc).
//
// A row without run() stands for a subject that this version of kedge does not have: claims of it are registered, read
// "not run", and are never passed over in silence.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "claims/claim.h"
#include "claims/evidence.h"
#include "kedge/options.h"
#include "kedge/train.h"
#include "record/provenance.h"

namespace kedge {

class LayerTunerFactory;

/// A claim and how much of it is measured.
struct TrackJob {
  const Claim* claim = nullptr;
  ClaimSize size;
};

struct TrackOutcome {
  std::string not_run;               ///< the reason; empty: it ran
  bool missing_subject = false;      ///< the reason is that this program does not have what the claim is about
  std::vector<ClaimSample> samples;  ///< with seeds, labels end with "seed S"
  std::vector<Artifact> artifacts;   ///< hashes are filled in by the caller
  std::vector<InputRecord> inputs;
  std::string details = "{}";  ///< a JSON object
};

struct TrackContext {
  RuntimeOptions runtime;
  LayerTunerFactory* tuners = nullptr;          ///< null in kedge without libtorch
  TrainFunction train = nullptr;                ///< likewise
  std::filesystem::path data;                   ///< of VerifyOptions
  std::filesystem::path bundle;                 ///< artifacts go to records/<track>/ within it
  std::filesystem::path scratch;                ///< there while the track runs, then removed
  std::function<void(const std::string&)> log;  ///< a line of logs/<track>.log
  /// Once for each job, as it is done; the outcome of a job is on disk when it returns.
  std::function<void(const TrackJob&, TrackOutcome)> done;
};

struct TrackRow {
  const char* track;    ///< "R"
  const char* subject;  ///< as a claim's "subject" names it
  const char* shows;    ///< one line
  const char* missing;  ///< what there is not; null: it can run
  bool needs_torch;     ///< runs in kedge-torch only
  /// Refuses a claim whose metric or [setup] the row does not know: Error(bad_file) "FILE:LINE: ...".
  void (*check)(const Claim& claim);
  /// Rows of one subject and one run() that stand side by side are measured in one call, with the jobs of all.
  void (*run)(std::span<const TrackJob> jobs, const TrackContext& context);
};

std::span<const TrackRow> verify_tracks() noexcept;
/// The row of a claim; an empty subject stands for the first of the track. Error(bad_file).
const TrackRow& find_track(const Claim& claim, std::span<const TrackRow> rows);

}  // namespace kedge
