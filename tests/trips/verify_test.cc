// The verify trip as a user runs it: the registered claims of a short track, exit codes, a bundle that sha256sum agrees
// with.
#include <cstdlib>

#include "base/json.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

const std::string kClaims = KEDGE_SOURCE_DIR "/claims";

trips::Result verify(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "verify");
  arguments.push_back("--quiet");
  return trips::run(arguments);
}

TEST(VerifyTrip, ParityTrackEndToEnd) {
  TemporaryFolder folder;
  const std::string one = (folder / "one").string(), two = (folder / "two").string();
  const trips::Result first = verify({kClaims, "--track", "T", "--profile", "quick", "--out", one});
  EXPECT_EQ(first.exit_code, 0) << first.out << first.err;
  EXPECT_LT(first.out.find("refuted"), first.out.find("upheld"));  // findings first
  const trips::Result checked = verify({kClaims, "--check", one, "--latex", (folder / "claims.tex").string()});
  EXPECT_EQ(checked.exit_code, 0) << checked.out << checked.err;
  EXPECT_EQ(trips::slurp(folder / "claims.tex").rfind("\\documentclass", 0), 0u);
  EXPECT_EQ(std::system(("cd " + one + " && sha256sum --quiet -c manifest.sha256").c_str()), 0);

  const trips::Result again = verify({kClaims, "--track", "T", "--profile", "quick", "--out", two, "--json"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const Json summary = Json::parse(again.out);
  EXPECT_EQ(summary["schema"], "kedge.verify/1");
  EXPECT_EQ(summary["results"]["verdicts"]["upheld"], 8);
  // The same bits: the same errors to the last digit, in another run.
  const trips::Result compared = verify({"--compare", one, two, "--json"});
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  const Json changes = Json::parse(compared.out)["results"]["changes"];
  ASSERT_EQ(std::count_if(changes.begin(), changes.end(), [](const Json& c) { return c["verdict_a"] == "upheld"; }), 8);
  for (const Json& change : changes) {
    if (change["verdict_a"] == "upheld") {
      EXPECT_EQ(change["change"], 0) << change;
    }
  }

  trips::spit(fs::path(one) / "records/replay.json", trips::slurp(fs::path(one) / "records/port-routing.json"));
  const trips::Result forged = verify({"--check", one});
  EXPECT_EQ(forged.exit_code, 1);
  EXPECT_NE(forged.out.find("claim replay has no record"), std::string::npos) << forged.out;
}

TEST(VerifyTrip, WrongCalls) {
  TemporaryFolder folder;
  EXPECT_EQ(verify({(folder / "none").string(), "--out", (folder / "o").string()}).exit_code, 3);
  EXPECT_EQ(verify({kClaims, "--track", "Z", "--out", (folder / "o").string()}).exit_code, 2);
  EXPECT_EQ(verify({"--check", (folder / "none").string()}).exit_code, 3);
  EXPECT_EQ(verify({kClaims, "--data", (folder / "none").string(), "--out", (folder / "o").string()}).exit_code, 3);
  EXPECT_EQ(verify({"--compare", "a"}).exit_code, 2);
  EXPECT_EQ(verify({"--compare", "a", "b", "--latex", "c"}).exit_code, 2);
  trips::spit(folder / "c.toml", "statement = 3\n");
  const trips::Result broken = verify({(folder / "c.toml").string(), "--out", (folder / "o").string()});
  EXPECT_EQ(broken.exit_code, 4);
  EXPECT_NE(broken.err.find("c.toml:1: \"statement\" is an integer"), std::string::npos) << broken.err;
  EXPECT_FALSE(fs::exists(folder / "o"));
}

}  // namespace
}  // namespace kedge
