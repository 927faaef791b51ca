#include "claims/protocol.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/version.h"
#include "claims/environment.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSchema = "kedge.verify-protocol/1";

// Two runs, even of the same second, have different names.
std::string new_run_id() {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return sha256_hex(fmt::format("{} {}", now, ::getpid())).substr(0, 16);
}

}  // namespace

std::string Protocol::sha256() const {
  std::string lines = "profile " + profile + "\n";
  for (const std::string& track : tracks) lines += "track " + track + "\n";
  for (const Claim& claim : claims) lines += claim.sha256 + "  " + claim.name + "\n";
  return sha256_hex(lines);
}

const Claim* Protocol::find(const std::string& name) const noexcept {
  for (const Claim& claim : claims) {
    if (claim.name == name) return &claim;
  }
  return nullptr;
}

Protocol register_claims(std::vector<Claim> claims, const std::string& profile,
                         const std::vector<std::string>& tracks) {
  Protocol protocol;
  protocol.profile = profile;
  protocol.tracks = tracks;
  std::sort(protocol.tracks.begin(), protocol.tracks.end());
  for (Claim& claim : claims) {
    const bool chosen = tracks.empty() || std::find(tracks.begin(), tracks.end(), claim.track) != tracks.end();
    if (chosen) protocol.claims.push_back(std::move(claim));
  }
  if (protocol.claims.empty()) {
    throw Error(ErrorCode::usage, "no claim is of the tracks that were asked for", "a track that a claim names");
  }
  protocol.run_id = new_run_id();
  protocol.started = utc_time();
  protocol.kedge_version = version();
  protocol.git_hash = git_hash();
  return protocol;
}

void write_protocol(const Protocol& protocol, const fs::path& bundle) {
  std::error_code error;
  fs::create_directories(bundle / "claims", error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + bundle.string() + ": " + error.message());
  Json claims = Json::array();
  for (const Claim& claim : protocol.claims) {
    write_file_atomically(bundle / "claims" / (claim.name + ".toml"), claim.text);
    claims.push_back({{"name", claim.name}, {"sha256", claim.sha256}});
  }
  const Json json{{"schema", kSchema},
                  {"profile", protocol.profile},
                  {"tracks", protocol.tracks},
                  {"run_id", protocol.run_id},
                  {"started", protocol.started},
                  {"kedge_version", protocol.kedge_version},
                  {"git_hash", protocol.git_hash},
                  {"sha256", protocol.sha256()},
                  {"claims", std::move(claims)}};
  write_file_atomically(bundle / "protocol.json", json.dump(2) + "\n");
}

RegisteredProtocol read_protocol(const fs::path& bundle) {
  const fs::path file = bundle / "protocol.json";
  const std::string where = file.string();
  const Json json = read_json(file);
  if (!json.is_object() || json_get<std::string>(json, "schema", where) != kSchema) {
    throw Error(ErrorCode::bad_file, where + " is no protocol of kedge verify", kSchema);
  }
  RegisteredProtocol out;
  Protocol& protocol = out.protocol;
  protocol.profile = json_get<std::string>(json, "profile", where);
  protocol.run_id = json_get<std::string>(json, "run_id", where);
  protocol.started = json_get<std::string>(json, "started", where);
  protocol.kedge_version = json_get<std::string>(json, "kedge_version", where);
  protocol.git_hash = json_get<std::string>(json, "git_hash", where);
  out.sha256 = json_get<std::string>(json, "sha256", where);
  if (!json.contains("tracks") || !json["tracks"].is_array() || !json.contains("claims") ||
      !json["claims"].is_array()) {
    throw Error(ErrorCode::bad_file, where + " has no lists of tracks and claims", kSchema);
  }
  for (const Json& track : json["tracks"]) {
    if (!track.is_string()) throw Error(ErrorCode::bad_file, where + " names a track that is no text", kSchema);
    protocol.tracks.push_back(track.get<std::string>());
  }
  for (const Json& row : json["claims"]) {
    if (!row.is_object()) throw Error(ErrorCode::bad_file, where + " names a claim that is no object", kSchema);
    const auto name = json_get<std::string>(row, "name", where);
    if (name.find('/') != std::string::npos) throw Error(ErrorCode::bad_file, where + " names the claim " + name);
    out.claim_hashes.emplace_back(name, json_get<std::string>(row, "sha256", where));
    const fs::path toml = bundle / "claims" / (name + ".toml");
    protocol.claims.push_back(parse_claim(read_file(toml, 1 << 20), toml));
  }
  return out;
}

}  // namespace kedge
