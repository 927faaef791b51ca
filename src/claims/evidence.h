// The record of one claim in a bundle (kedge.verify-record/1): the samples of its run, or why there are none.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "claims/verdict.h"

namespace kedge {

/// A file of the bundle that a record's samples were taken from.
struct Artifact {
  std::string path;  ///< within the bundle
  std::string sha256;
};

struct ClaimRecord {
  std::string claim, claim_sha256, protocol_sha256, run_id;
  bool ran = false;
  std::string reason;            ///< where it did not run
  bool missing_subject = false;  ///< it did not run because kedge does not have what the claim is about
  std::vector<ClaimSample> samples;
  Estimate estimate;
  std::vector<Artifact> artifacts;
  // As JSON.
  std::string provenance = "{}";  ///< record/provenance.h
  std::string machine = "{}";     ///< {"before", "after"}: claims/environment.h
  std::string details = "{}";     ///< what the track has to say beside the samples; an object
};

nlohmann::ordered_json record_json(const ClaimRecord& record);
/// Error(bad_file) naming `where`.
ClaimRecord parse_record(const nlohmann::ordered_json& json, const std::string& where);

nlohmann::ordered_json estimate_json(const Estimate& estimate);

}  // namespace kedge
