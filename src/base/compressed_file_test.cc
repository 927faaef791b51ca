#include "base/compressed_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
class CompressedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-packed-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  static ErrorCode error_of(const fs::path& path, std::uint64_t max_bytes = 1000) {
    try {
      read_data_file(path, max_bytes);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "no error for " << path;
    return ErrorCode::io;
  }
  fs::path folder_;
};

const fs::path kFixtures = fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/packed";

TEST_F(CompressedFileTest, ReadsGzipXzAndPlain) {
  EXPECT_EQ(read_data_file(kFixtures / "words.txt.gz"), "kedge\nsecond member\n");
  EXPECT_EQ(read_data_file(kFixtures / "words.txt.xz"), "kedge\n");
  EXPECT_EQ(read_data_file(write("words.txt", "plain")), "plain");
}

TEST_F(CompressedFileTest, Complains) {
  for (const char* name : {"words.txt.gz", "words.txt.xz"}) {
    std::ifstream in(kFixtures / name, std::ios::binary);
    const std::string packed{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(error_of(write(name, packed.substr(0, packed.size() - 5))), ErrorCode::bad_file) << name;
    EXPECT_EQ(error_of(write(name, "not packed")), ErrorCode::bad_file) << name;
    EXPECT_EQ(error_of(write(name, packed), 3), ErrorCode::bad_file) << name;
    EXPECT_EQ(error_of(write(name, "")), ErrorCode::bad_file) << name;
  }
  EXPECT_EQ(error_of(folder_ / "none.gz"), ErrorCode::not_found);
}

}  // namespace
}  // namespace kedge
