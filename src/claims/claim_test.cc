#include "claims/claim.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/hash.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const std::string kGood = R"(statement = "Apples fall faster than feathers."
claimed_by = "us"
source = "a page"
track = "PS"
metric = "speed"
effect = "ratio"
baseline = "feathers"
test = "student-t"
relation = ">="
threshold = 1.5
refuted_at = 1.2
family = "falling"
gate = "verdict"
n = 12
windows = 3
seeds = [7, 8]
[quick]
n = 6
[setup]
height = 3
)";

Claim parse(const std::string& text) { return parse_claim(text, "claims/apples.toml"); }

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    return error.what();
  }
  return "accepted";
}

TEST(Claim, ReadsEveryKey) {
  const Claim claim = parse(kGood);
  EXPECT_EQ(claim.name, "apples");
  EXPECT_EQ(claim.sha256, sha256_hex(kGood));
  EXPECT_EQ(claim.statement, "Apples fall faster than feathers.");
  EXPECT_EQ(claim.effect, Effect::ratio);
  EXPECT_EQ(claim.test, ClaimTest::student_t);
  EXPECT_EQ(claim.relation, Relation::at_least);
  EXPECT_EQ(claim.threshold, 1.5);
  EXPECT_EQ(claim.refuted_at, 1.2);
  EXPECT_EQ(claim.family, "falling");
  EXPECT_FALSE(claim.must_be_upheld);
  EXPECT_EQ(claim.full.n, 12);
  EXPECT_EQ(claim.full.windows, 3);
  EXPECT_EQ(claim.full.seeds, (std::vector<std::uint64_t>{7, 8}));
  EXPECT_EQ(claim.quick.n, 6);
  EXPECT_EQ(claim.quick.windows, 3);
  EXPECT_EQ(claim.quick.seeds, claim.full.seeds);
  ASSERT_TRUE(std::holds_alternative<TomlTable>(claim.setup.value));
  EXPECT_EQ(std::get<TomlTable>(claim.setup.value).at(0).key, "height");
}

TEST(Claim, RefusesWhatCannotBeJudged) {
  EXPECT_NE(error_of(with(kGood, "refuted_at = 1.2\n", "")).find("no \"refuted_at\""), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "refuted_at = 1.2", "refuted_at = 1.9")).find("upholds the claim and one of 1.9"),
            std::string::npos);
  EXPECT_NE(error_of(with(kGood, "threshold = 1.5", "threshold = nan")).find("not finite"), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "\">=\"", "\">\"")).find("\"relation\" is \">\""), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "baseline = \"feathers\"\n", "")).find("a baseline with every effect"),
            std::string::npos);
  EXPECT_NE(error_of(with(kGood, "n = 12", "n = 13")).find("n is 13 in 3 windows"), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "n = 6", "n = 7")).find("n is 7 in 3 windows"), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "n = 6", "threshold = 1.1")).find("[quick] has no key \"threshold\""),
            std::string::npos);
  EXPECT_NE(error_of(with(kGood, "[7, 8]", "[7, 7]")).find("the seed 7 stands there twice"), std::string::npos);
  EXPECT_NE(error_of(with(kGood, "gate = \"verdict\"\n", "")).find("no \"gate\""), std::string::npos);
  EXPECT_NE(error_of("treshold = 1\n" + kGood).find("no key \"treshold\""), std::string::npos);
  EXPECT_NE(error_of(with(with(kGood, "threshold = 1.5", "threshold = 0"), "refuted_at = 1.2", "refuted_at = -1"))
                .find("above 0"),
            std::string::npos);
  // An AUROC has no value per seed that a Student interval could be taken of.
  EXPECT_NE(error_of(with(kGood, "\"speed\"", "\"auroc\"")).find("figure of all records together"), std::string::npos);
  EXPECT_THROW(parse_claim(kGood, "claims/a b.toml"), Error);
}

// Each file of tests/fixtures/claims is broken in the way that its first line names.
TEST(Claim, BrokenFixturesNameTheirError) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(KEDGE_SOURCE_DIR "/tests/fixtures/claims")) {
    const std::string text = read_file(entry.path());
    ASSERT_TRUE(text.starts_with("# ")) << entry.path();
    const std::string expected = text.substr(2, text.find('\n') - 2);
    ++files;
    try {
      parse_claim(text, entry.path());
      ADD_FAILURE() << entry.path() << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  }
  EXPECT_GE(files, 6);
}

TEST(Claim, FoldersAreReadByName) {
  const std::vector<Claim> claims = read_claims(KEDGE_SOURCE_DIR "/claims");
  EXPECT_GT(claims.size(), 40u);
  for (std::size_t i = 1; i < claims.size(); ++i) EXPECT_LT(claims[i - 1].name, claims[i].name);
  EXPECT_THROW(read_claims(KEDGE_SOURCE_DIR "/claims/none"), Error);
}

}  // namespace
}  // namespace kedge
