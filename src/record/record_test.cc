#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <limits>
#include <regex>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/version.h"
#include "kedge/error.h"
#include "record/envelope.h"
#include "record/out_folder.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

class RecordTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-record-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(RecordTest, ProvenanceSaysWhatRan) {
  const Provenance p = make_provenance({Isa::scalar, Numerics::consistent, Activations::int8}, 3);
  EXPECT_EQ(p.kedge_version, version());
  EXPECT_EQ(p.isa, "scalar");
  EXPECT_EQ(p.numerics, "consistent");
  EXPECT_EQ(p.activations, "int8");
  EXPECT_EQ(p.threads, 3);
  EXPECT_TRUE(std::regex_match(p.date, std::regex("20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")))
      << p.date;
  ASSERT_FALSE(p.command_line.empty());
  EXPECT_NE(p.command_line[0].find("record_test"), std::string::npos);
}

TEST_F(RecordTest, FolderHashFollowsContentAndNames) {
  write_file_atomically(folder_ / "config.json", "{}");
  write_file_atomically(folder_ / "model.safetensors", "abc");
  write_file_atomically(folder_ / "notes.md", "not a part of the model");
  const std::string lines = sha256_hex("{}") + "  config.json\n" + sha256_hex("abc") + "  model.safetensors\n";
  EXPECT_EQ(hash_input(folder_), sha256_hex(lines));
  write_file_atomically(folder_ / "notes.md", "changed");
  EXPECT_EQ(hash_input(folder_), sha256_hex(lines));
  write_file_atomically(folder_ / "model.safetensors", "abd");
  EXPECT_NE(hash_input(folder_), sha256_hex(lines));
  EXPECT_EQ(record_input("text", folder_ / "config.json").sha256, sha256_hex("{}"));
  EXPECT_THROW(hash_input(folder_ / "none"), Error);
}

TEST_F(RecordTest, EnvelopeIsWrittenAndReadBack) {
  Provenance provenance = make_provenance({}, 1);
  provenance.seeds = {1, 18446744073709551615u};
  provenance.inputs.push_back({"text", "data\xff.txt", "00"});
  Json results = {{"flip_rate", 0.25}, {"undefined", std::numeric_limits<double>::quiet_NaN()}};
  const Json envelope = make_envelope("kedge.audit/1", provenance, Json::object(), results, Json::array({1, 2}));
  const fs::path path = folder_ / "result.json";
  write_envelope(path, envelope);

  const Json back = read_json(path);
  std::vector<std::string> keys;
  for (const auto& [key, value] : back.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"schema", "provenance", "config", "results", "samples"}));
  EXPECT_EQ(back["schema"], "kedge.audit/1");
  EXPECT_EQ(back["results"]["flip_rate"], 0.25);
  EXPECT_TRUE(back["results"]["undefined"].is_null());
  EXPECT_EQ(back["provenance"]["seeds"][1].get<std::uint64_t>(), 18446744073709551615u);
  EXPECT_EQ(back["provenance"]["inputs"][0]["path"], "data\xEF\xBF\xBD.txt");
  EXPECT_EQ(back["samples"].size(), 2u);
}

TEST_F(RecordTest, WrongShapeIsABug) {
  EXPECT_DEATH(make_envelope("audit", {}, Json::object(), Json::object(), Json::array()), "schema");
  EXPECT_DEATH(make_envelope("kedge.audit/1", {}, Json::object(), Json::object(), Json::object()), "samples");
}

TEST_F(RecordTest, OutFolderTakesAwayOnlyWhatItMade) {
  {
    const OutFolder made(folder_ / "new");
  }
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  fs::create_directory(folder_ / "there");
  {
    const OutFolder there(folder_ / "there");
  }
  EXPECT_TRUE(fs::exists(folder_ / "there"));
  fs::create_directory_symlink(folder_ / "there", folder_ / "link");
  {
    const OutFolder link(folder_ / "link");
  }
  EXPECT_TRUE(fs::exists(folder_ / "link"));
  {
    const OutFolder kept(folder_ / "kept");
    write_file_atomically(folder_ / "kept/file", "text");
  }
  EXPECT_TRUE(fs::exists(folder_ / "kept/file"));
}

}  // namespace
}  // namespace kedge
