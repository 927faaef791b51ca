// IDX files: what is read, and what each broken file is told (tests/fixtures/mnist is a part of MNIST).
#include "io/idx.h"

#include <array>

#include <gtest/gtest.h>

#include "base/file.h"
#include "io/test_files.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const fs::path kFixture = fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/mnist";

std::string idx(const std::vector<std::uint32_t>& shape, const std::string& elements, char type = 8) {
  std::string file{'\0', '\0', type, static_cast<char>(shape.size())};
  for (const std::uint32_t size : shape) {
    for (const int shift : {24, 16, 8, 0}) file += static_cast<char>(size >> shift & 0xFF);
  }
  return file + elements;
}

TEST(Idx, ReadsShapeAndElements) {
  const std::string file = idx({2, 3}, "abcdef");
  const IdxView view = parse_idx(file, "f");
  EXPECT_EQ(view.shape, (Shape{2, 3}));
  EXPECT_EQ(view.elements, "abcdef");
}

TEST(Idx, RefusesBrokenFiles) {
  struct Case {
    std::string file;
    ErrorCode code;
    const char* says;
  };
  const Case cases[] = {
      {"", ErrorCode::bad_file, "no IDX file"},
      {"PK\x03\x04", ErrorCode::bad_file, "no IDX file"},
      {idx({4}, "abcd", 0x0D), ErrorCode::unsupported, "0x0d"},
      {std::string("\0\0\x08\0", 4), ErrorCode::bad_file, "0 dimensions"},
      {std::string("\0\0\x08\x09", 4) + std::string(64, '\1'), ErrorCode::bad_file, "9 dimensions"},
      {idx({2, 3}, "").substr(0, 9), ErrorCode::bad_file, "within its header"},
      {idx({2, 0}, ""), ErrorCode::bad_file, "empty"},
      {idx({2, 3}, "abcde"), ErrorCode::bad_file, "5 bytes follow"},
      {idx({2, 3}, "abcdefg"), ErrorCode::bad_file, "7 bytes follow"},
      {idx({0xFFFFFFFF, 0xFFFFFFFF}, "abc"), ErrorCode::bad_file, "smaller than its shape"},
  };
  for (const Case& c : cases) {
    expect_error(c.code, c.says, [&] { parse_idx(c.file, "broken"); });
    expect_error(c.code, "broken: ", [&] { parse_idx(c.file, "broken"); });
  }
}

TEST(Mnist, ReadsImagesAndLabels) {
  const ImageSet train = read_mnist(kFixture, MnistPart::train), test = read_mnist(kFixture, MnistPart::test);
  EXPECT_EQ(train.count, 320);
  EXPECT_EQ(test.count, 100);
  EXPECT_EQ(train.rows, 28);
  EXPECT_EQ(train.cols, 28);
  // The first labels of the whole data set are known: 5 0 4 1 9 and 7 2 1 0 4.
  const std::array<int, 5> first_train{5, 0, 4, 1, 9}, first_test{7, 2, 1, 0, 4};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(train.label(i), first_train[static_cast<std::size_t>(i)]);
    EXPECT_EQ(test.label(i), first_test[static_cast<std::size_t>(i)]);
  }
  EXPECT_EQ(train.image(0)[5 * 28 + 12], 3);  // the first grey pixel of the first image
  EXPECT_EQ(train.images.size(), 320u * 784u);
  EXPECT_NE(train.content_hash, test.content_hash);
}

class BrokenMnist : public ::testing::Test {
 protected:
  void expect_train(ErrorCode code, std::string_view part) {
    expect_error(code, part, [&] { read_mnist(folder_.path(), MnistPart::train); });
  }
  const std::string images_ = idx({2, 2, 2}, "abcdefgh"), labels_ = idx({2}, "\x01\x09");
  TempFolder folder_;
};

TEST_F(BrokenMnist, NamesWhatIsMissing) {
  expect_train(ErrorCode::not_found, "train-images-idx3-ubyte");
  folder_.write("train-images-idx3-ubyte", images_);
  expect_train(ErrorCode::not_found, "train-labels-idx1-ubyte");
}

TEST_F(BrokenMnist, SeesSwappedFiles) {
  folder_.write("train-images-idx3-ubyte", labels_);
  folder_.write("train-labels-idx1-ubyte", images_);
  expect_train(ErrorCode::bad_file, "swapped");
}

TEST_F(BrokenMnist, SeesOtherCounts) {
  folder_.write("train-images-idx3-ubyte", images_);
  folder_.write("train-labels-idx1-ubyte", idx({3}, "\x01\x01\x01"));
  expect_train(ErrorCode::mismatch, "2 images");
}

TEST_F(BrokenMnist, SeesLabelsThatAreNoDigits) {
  folder_.write("train-images-idx3-ubyte", images_);
  folder_.write("train-labels-idx1-ubyte", idx({2}, "\x01\x0A"));
  expect_train(ErrorCode::bad_file, "label 1 is 10");
}

TEST_F(BrokenMnist, SeesDamagedCompression) {
  folder_.write("train-images-idx3-ubyte.gz", read_file(kFixture / "train-images-idx3-ubyte.gz").substr(0, 1000));
  folder_.write("train-labels-idx1-ubyte", labels_);
  expect_train(ErrorCode::bad_file, "train-images-idx3-ubyte.gz");
}

}  // namespace
}  // namespace kedge
