#include "generate/corpus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/hash.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

const std::filesystem::path root = KEDGE_SOURCE_DIR;

class Corpus : public testing::Test {
 protected:
  Corpus() : tokenizer_(Tokenizer::open(root / "models/demo-4m")) {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("kedge_corpus_") + info->name());
    std::filesystem::create_directories(folder_);
  }
  ~Corpus() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path file(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  ErrorCode error(const std::vector<std::filesystem::path>& files, std::int64_t seqlen, std::int64_t limit = 0) {
    try {
      read_token_rows(tokenizer_, files, seqlen, limit);
    } catch (const Error& e) {
      return e.code();
    }
    ADD_FAILURE() << "no error";
    return ErrorCode::io;
  }

  Tokenizer tokenizer_;
  std::filesystem::path folder_;
};

TEST_F(Corpus, CutsTheBundledTextAsTheGoldenDoes) {
  const TokenRows rows = read_token_rows(tokenizer_, {root / "models/demo-text.txt"}, 256);
  EXPECT_EQ(rows.rows.size(), 141u);
  EXPECT_EQ(rows.tokens(), 141 * 256);
  EXPECT_LT(rows.tokens_dropped, 256);
  EXPECT_EQ(rows.content_hash, sha256_file(root / "models/demo-text.txt"));
}

TEST_F(Corpus, LimitTakesFromEachFileInTurn) {
  const auto a = file("a", std::string(40, 'x') + " one two three four five six seven eight nine ten eleven twelve");
  const auto b = file("b", "one two three four");
  const auto ids = tokenizer_.encode("one two three four");
  ASSERT_EQ(ids.size() / 2, 2u);
  const TokenRows rows = read_token_rows(tokenizer_, {a, b}, 2, 3);
  EXPECT_EQ(rows.source, (std::vector<int>{0, 0, 1}));
  EXPECT_EQ(rows.rows[2], (std::vector<std::int32_t>{ids[0], ids[1]}));
  const TokenRows more = read_token_rows(tokenizer_, {a, b}, 2, 6);
  EXPECT_EQ(more.source, (std::vector<int>{0, 0, 0, 0, 1, 1}));
}

TEST_F(Corpus, AShortTextIsOneShortRow) {
  const auto a = file("a", "one two three");
  const TokenRows rows = read_token_rows(tokenizer_, {a}, 256);
  ASSERT_EQ(rows.rows.size(), 1u);
  EXPECT_EQ(rows.rows[0], tokenizer_.encode("one two three"));
  EXPECT_EQ(rows.tokens_dropped, 0);
}

TEST_F(Corpus, Complains) {
  const auto a = file("a", "one two three");
  EXPECT_EQ(error({}, 256), ErrorCode::usage);
  EXPECT_EQ(error({a}, 1), ErrorCode::usage);
  EXPECT_EQ(error({a}, 256, -1), ErrorCode::usage);
  EXPECT_EQ(error({file("empty", "")}, 256), ErrorCode::usage);
  EXPECT_EQ(error({file("single", "a")}, 256), ErrorCode::usage);
  EXPECT_EQ(error({folder_ / "none"}, 256), ErrorCode::not_found);
}

TEST(TokenIds, MustBeInTheVocabulary) {
  const std::vector<std::vector<std::int32_t>> rows{{1, 2}, {99, 3}};
  EXPECT_NO_THROW(check_token_ids(rows, 100));
  EXPECT_THROW(check_token_ids(rows, 99), Error);
}

}  // namespace
}  // namespace kedge
