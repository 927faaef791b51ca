// An evidence bundle on disk (docs/formats/evidence-bundle.md): one run of kedge verify and all that it rests on.
//
//   protocol.json, claims/*.toml   what was registered before the run
//   env.json                       the machine and the program
//   records/CLAIM.json             one record per claim; records/TRACK/*: what records were taken from
//   logs/TRACK.log                 what each track said as it ran
//   summary.json, summary.md, claims.csv, claims.md, csv/CLAIM.csv   computed from the above
//   gates.json, index.html         the gates' outcome, and the page
//   manifest.sha256                of every other file, as sha256sum prints it
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "claims/evidence.h"
#include "claims/protocol.h"

namespace kedge {

struct Bundle {
  std::filesystem::path folder;
  RegisteredProtocol registered;
  std::string env = "{}";                      ///< env.json; empty where it cannot be read
  std::map<std::string, ClaimRecord> records;  ///< by file name without ".json"
  std::vector<std::string> damaged;            ///< a sentence for each file that cannot be read

  const Protocol& protocol() const noexcept { return registered.protocol; }
  /// null when there is none, or when it is another claim's.
  const ClaimRecord* record_of(const Claim& claim) const noexcept;
};

/// Error(not_found), Error(bad_file): there is no protocol to read. Damaged records and logs are in `damaged`.
Bundle read_bundle(const std::filesystem::path& folder);

/// Estimates computed anew from the records' samples, and the verdicts; by protocol().claims.
struct BundleVerdicts {
  std::vector<std::optional<Estimate>> estimates;  ///< nullopt: it did not run
  std::vector<Judgement> judgements;
};
BundleVerdicts judge_bundle(const Bundle& bundle);

/// Paths of all files in the bundle, within it, sorted; temporary files and the scratch folder are not among them.
std::vector<std::string> bundle_files(const std::filesystem::path& folder);
/// The folder of what a track is working on; removed at the end.
std::filesystem::path scratch_folder(const std::filesystem::path& bundle);
void write_manifest(const std::filesystem::path& folder);
/// A sentence for each file that is missing, changed or not in the manifest.
std::vector<std::string> check_manifest(const std::filesystem::path& folder);

}  // namespace kedge
