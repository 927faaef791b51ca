// The claims of the repository, and the committed verdicts that docs/claims.md is printed from.
#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "base/json.h"
#include "claims/claim.h"
#include "claims/tracks.h"
#include "kedge/verify.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const std::string kClaims = KEDGE_SOURCE_DIR "/claims";
const std::string kSummary = KEDGE_SOURCE_DIR "/docs/results/claims.json";

// Every registered claim is one that its track can read.
TEST(Registered, ClaimsAreReadable) {
  std::set<std::string> tracks;
  for (const Claim& claim : read_claims(kClaims)) {
    const TrackRow& row = find_track(claim, verify_tracks());
    if (row.check != nullptr) {
      EXPECT_NO_THROW(row.check(claim)) << claim.name;
    }
    tracks.insert(claim.track);
  }
  for (const char* track : {"Q", "QS", "P", "PS", "DB", "T", "X", "R"}) EXPECT_TRUE(tracks.contains(track)) << track;
}

// docs/claims.md and docs/results/claims.json are claims.md and summary.json of one full run; a claim that was edited
// since is another one than the page speaks of.
TEST(Registered, PublishedVerdictsAreTheCommittedRun) {
  const std::string summary = read_file(kSummary);
  EXPECT_EQ(claims_document(summary), read_file(KEDGE_SOURCE_DIR "/docs/claims.md"))
      << "print it anew: kedge verify claims --out DIR, then copy DIR/summary.json and DIR/claims.md";
  std::set<std::string> published;
  const Json json = Json::parse(summary);
  EXPECT_EQ(json["config"]["profile"], "full");
  EXPECT_TRUE(json["config"]["tracks"].empty());
  for (const Json& row : json["results"]["claims"]) {
    const fs::path file = fs::path(kClaims) / (row["name"].get<std::string>() + ".toml");
    ASSERT_TRUE(fs::exists(file)) << file;
    EXPECT_EQ(parse_claim(read_file(file), file).sha256, row["sha256"]) << file << " was edited after the run";
    published.insert(row["name"]);
  }
  std::set<std::string> registered;
  for (const Claim& claim : read_claims(kClaims)) registered.insert(claim.name);
  EXPECT_EQ(published, registered);
}

}  // namespace
}  // namespace kedge
