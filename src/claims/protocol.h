// What a run of kedge verify is bound to before it starts: the claims, by their hashes, and how much is measured.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "claims/claim.h"

namespace kedge {

struct Protocol {
  std::string profile;              ///< "quick", "full"
  std::vector<std::string> tracks;  ///< the only ones that are run; empty: all
  std::vector<Claim> claims;        ///< of these tracks
  std::string run_id, started;      ///< of this run; started: UTC
  std::string kedge_version, git_hash;

  /// SHA-256 of profile, tracks and the claims' hashes and names.
  std::string sha256() const;
  const ClaimSize& size(const Claim& claim) const noexcept { return profile == "quick" ? claim.quick : claim.full; }
  const Claim* find(const std::string& name) const noexcept;
};

/// Claims of other tracks are left out; run_id and started are new. Error(usage): nothing is left.
Protocol register_claims(std::vector<Claim> claims, const std::string& profile, const std::vector<std::string>& tracks);

/// protocol.json and claims/*.toml in the bundle.
void write_protocol(const Protocol& protocol, const std::filesystem::path& bundle);
/// The claims are read from the bundle's copies; that they are those that protocol.json names is gate A's matter.
struct RegisteredProtocol {
  Protocol protocol;
  std::string sha256;                                             ///< as protocol.json has it
  std::vector<std::pair<std::string, std::string>> claim_hashes;  ///< name, SHA-256; as protocol.json has them
};
/// Error(not_found), Error(bad_file).
RegisteredProtocol read_protocol(const std::filesystem::path& bundle);

}  // namespace kedge
