#include "claims/bundle.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifest = "manifest.sha256";
constexpr std::size_t kHexDigits = 64;

void read_records(Bundle& bundle) {
  std::error_code error;
  for (fs::directory_iterator at(bundle.folder / "records", error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".json") continue;
    try {
      bundle.records.emplace(at->path().stem().string(), parse_record(read_json(at->path()), at->path().string()));
    } catch (const Error& damaged) {
      bundle.damaged.push_back(damaged.what());
    }
  }
}

}  // namespace

const ClaimRecord* Bundle::record_of(const Claim& claim) const noexcept {
  const auto at = records.find(claim.name);
  return at == records.end() || at->second.claim != claim.name ? nullptr : &at->second;
}

Bundle read_bundle(const fs::path& folder) {
  Bundle bundle;
  bundle.folder = folder;
  bundle.registered = read_protocol(folder);
  try {
    bundle.env = read_json(folder / "env.json").dump();
  } catch (const Error& error) {
    bundle.env.clear();
    bundle.damaged.push_back(error.what());
  }
  read_records(bundle);
  std::sort(bundle.damaged.begin(), bundle.damaged.end());
  return bundle;
}

BundleVerdicts judge_bundle(const Bundle& bundle) {
  BundleVerdicts out;
  const std::vector<Claim>& claims = bundle.protocol().claims;
  for (const Claim& claim : claims) {
    const ClaimRecord* record = bundle.record_of(claim);
    const bool ran = record != nullptr && record->ran;
    out.estimates.push_back(ran ? std::optional(estimate(claim, record->samples)) : std::nullopt);
  }
  std::vector<const Estimate*> estimates;
  for (const std::optional<Estimate>& e : out.estimates) estimates.push_back(e ? &*e : nullptr);
  out.judgements = judge(claims, estimates);
  return out;
}

fs::path scratch_folder(const fs::path& bundle) { return bundle / ".scratch"; }

std::vector<std::string> bundle_files(const fs::path& folder) {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path() == scratch_folder(folder)) at.disable_recursion_pending();
    if (at->is_regular_file(error)) out.push_back(fs::relative(at->path(), folder).generic_string());
  }
  if (error) throw Error(ErrorCode::io, "cannot read " + folder.string() + ": " + error.message());
  std::sort(out.begin(), out.end());
  return out;
}

void write_manifest(const fs::path& folder) {
  std::string text;
  for (const std::string& file : bundle_files(folder)) {
    if (file != kManifest) text += sha256_file(folder / file) + "  " + file + "\n";
  }
  write_file_atomically(folder / kManifest, text);
}

std::vector<std::string> check_manifest(const fs::path& folder) {
  std::vector<std::string> failures;
  std::string text;
  try {
    text = read_file(folder / kManifest);
  } catch (const Error& error) {
    return {error.what()};
  }
  std::set<std::string> listed;
  std::istringstream lines(text);
  const std::vector<std::string> files = bundle_files(folder);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() <= kHexDigits + 2 || line.substr(kHexDigits, 2) != "  ") {
      failures.push_back(fmt::format("{} has a line that is no hash and path: \"{}\"", kManifest, line));
      continue;
    }
    const std::string file = line.substr(kHexDigits + 2);
    if (!listed.insert(file).second) failures.push_back(fmt::format("{} names {} twice", kManifest, file));
    if (!std::binary_search(files.begin(), files.end(), file)) {
      failures.push_back(fmt::format("{} is in the manifest and not in the bundle", file));
    } else if (sha256_file(folder / file) != line.substr(0, kHexDigits)) {
      failures.push_back(fmt::format("{} has changed since the bundle was closed", file));
    }
  }
  for (const std::string& file : files) {
    if (file != kManifest && !listed.contains(file)) {
      failures.push_back(fmt::format("{} is in the bundle and not in the manifest", file));
    }
  }
  return failures;
}

}  // namespace kedge
