#include "base/file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/hash.h"
#include "base/mapped_file.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-file-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  int entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

template <class F>
Error error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::usage, "");
}

TEST_F(FileTest, WrittenFileIsReadBack) {
  const fs::path path = folder_ / "a.json";
  write_file_atomically(path, "one");
  write_file_atomically(path, std::string("t\0wo", 4));
  EXPECT_EQ(read_file(path), std::string("t\0wo", 4));
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, NothingAppearsBeforeCommit) {
  const fs::path path = folder_ / "a.json";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(entries(), 0);
}

// RLIMIT_FSIZE stands in for a full disk: write() fails after the first bytes.
TEST_F(FileTest, FailedWriteLeavesNothingAndKeepsTheOldFile) {
  const fs::path path = folder_ / "a.json";
  write_file_atomically(path, "old");
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit limited = before;
  limited.rlim_cur = 1 << 16;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limited), 0);
  const Error error = error_of([&] { write_file_atomically(path, std::string(1 << 20, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
  EXPECT_NE(std::string(error.what()).find("File too large"), std::string::npos) << error.what();
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(FileTest, FullDeviceIsAnErrorAndStaysADevice) {
  struct stat status;
  if (::stat("/dev/full", &status) != 0 || !S_ISCHR(status.st_mode)) GTEST_SKIP() << "no /dev/full here";
  const Error error = error_of([] { write_file_atomically("/dev/full", "text"); });
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
  ASSERT_EQ(::stat("/dev/full", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
}

TEST_F(FileTest, MissingFolderAndFolderInPlaceOfFile) {
  EXPECT_EQ(error_of([&] { write_file_atomically(folder_ / "no" / "a", "x"); }).code(), ErrorCode::io);
  fs::create_directory(folder_ / "d");
  EXPECT_EQ(error_of([&] { write_file_atomically(folder_ / "d", "x"); }).code(), ErrorCode::io);
  EXPECT_EQ(entries(), 1);
  EXPECT_EQ(error_of([&] { read_file(folder_ / "d"); }).code(), ErrorCode::io);
  EXPECT_EQ(error_of([&] { read_file(folder_ / "none"); }).code(), ErrorCode::not_found);
}

TEST_F(FileTest, ReadIsBounded) {
  write_file_atomically(folder_ / "a", "12345");
  EXPECT_EQ(read_file(folder_ / "a", 5), "12345");
  EXPECT_EQ(error_of([&] { read_file(folder_ / "a", 4); }).code(), ErrorCode::bad_file);
  EXPECT_FALSE(read_file("/proc/self/status").empty());
}

TEST_F(FileTest, MappedFile) {
  const fs::path path = folder_ / "a";
  const std::string text(100000, 'm');
  write_file_atomically(path, text);
  MappedFile file(path);
  MappedFile moved(std::move(file));
  ASSERT_EQ(moved.bytes().size(), text.size());
  moved.drop(moved.bytes());
  EXPECT_EQ(static_cast<char>(moved.bytes()[99999]), 'm');
  write_file_atomically(folder_ / "empty", "");
  EXPECT_TRUE(MappedFile(folder_ / "empty").bytes().empty());
  EXPECT_EQ(error_of([&] { MappedFile none(folder_ / "none"); }).code(), ErrorCode::not_found);
  EXPECT_EQ(error_of([&] { MappedFile none(folder_); }).code(), ErrorCode::io);
}

TEST_F(FileTest, MappedPipeIsAnErrorAndNoHang) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { MappedFile none(folder_ / "pipe"); }).code(), ErrorCode::io);
}

// FIPS 180-2, appendix B.
TEST_F(FileTest, Sha256) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  write_file_atomically(folder_ / "a", std::string(1000000, 'a'));
  EXPECT_EQ(sha256_file(folder_ / "a"), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace kedge
