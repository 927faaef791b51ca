#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "generate/tokenizer.h"
#include "kedge/error.h"
#include "kedge/tokenizer.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

class TrainTokenizer : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text);
    return folder_ / name;
  }

  TrainTokenizerOptions options(const fs::path& text) {
    TrainTokenizerOptions out;
    out.texts = {text};
    out.out = folder_ / "out";
    out.vocab_size = 300;
    return out;
  }

  void expect_refused(const TrainTokenizerOptions& options, ErrorCode code, const std::string& part) {
    try {
      train_tokenizer(options);
      ADD_FAILURE() << "accepted; expected: " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(options.out / "tokenizer.json")) << part;
  }

  const fs::path folder_ = fs::temp_directory_path() / ("kedge-train-tokenizer-" + std::to_string(::getpid()));
};

TEST_F(TrainTokenizer, EqualsTheTokenizersLibrary) {
  const Json golden = read_json(fs::path(KEDGE_SOURCE_DIR) / "tests/goldens/tokenizer_training.json");
  ASSERT_EQ(golden["cases"].size(), 4u);
  int number = 0;
  for (const Json& expected : golden["cases"]) {
    SCOPED_TRACE(number);
    TrainTokenizerOptions given = options(write("text.txt", expected["text"].get<std::string>()));
    given.out = folder_ / std::to_string(number++);
    given.vocab_size = expected["vocab_size"].get<std::int64_t>();
    given.min_frequency = expected["min_frequency"].get<std::int64_t>();
    given.special_tokens = expected["special_tokens"].get<std::vector<std::string>>();
    given.pattern = expected["pattern"].get<std::string>();
    const TrainTokenizerReport report = train_tokenizer(given);
    const Json model = read_json(given.out / "tokenizer.json")["model"];
    std::int64_t id = 0;
    for (const char* part : {"first_tokens", "later_tokens"}) {
      for (const Json& token : expected[part]) EXPECT_EQ(model["vocab"][token.get<std::string>()], id++);
    }
    EXPECT_EQ(model["vocab"].size(), static_cast<std::size_t>(id));
    EXPECT_EQ(report.vocab_size, id);
    EXPECT_EQ(model["merges"], expected["merges"]);
    const Tokenizer tokenizer = Tokenizer::open(given.out);
    EXPECT_EQ(tokenizer.encode(expected["text"].get<std::string>()), expected["ids"].get<std::vector<std::int32_t>>());
  }
}

TEST_F(TrainTokenizer, SpecialTokensEndTextsAndBytesRoundTrip) {
  const TrainTokenizerOptions given = options(write("text.txt", "one two two three three three\n"));
  const TrainTokenizerReport report = train_tokenizer(given);
  const Tokenizer tokenizer = Tokenizer::open(given.out);
  EXPECT_EQ(tokenizer.eos_id(), 0);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_TRUE(tokenizer.is_special(0));
  const std::string unseen = "not in the text: ßé 東京 \x01\n";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(unseen)), unseen);
  EXPECT_GT(report.bytes_per_token, 1.0);
  EXPECT_EQ(report.content_hash, tokenizer.content_hash());
}

TEST_F(TrainTokenizer, JsonLinesAreReadByField) {
  TrainTokenizerOptions lines = options(write("text.txt", "low lower lowest\n"));
  lines.out = folder_ / "a";
  TrainTokenizerOptions records = options(write("text.jsonl", "{\"body\": \"low lower lowest\\n\"}\n\n"));
  records.field = "body";
  records.out = folder_ / "b";
  EXPECT_EQ(train_tokenizer(lines).content_hash, train_tokenizer(records).content_hash);
}

TEST_F(TrainTokenizer, RefusesWhatCannotWork) {
  const fs::path text = write("text.txt", "some text\n");
  const auto with = [&](const std::function<void(TrainTokenizerOptions&)>& edit) {
    TrainTokenizerOptions out = options(text);
    edit(out);
    return out;
  };
  expect_refused(with([](auto& o) { o.texts.clear(); }), ErrorCode::usage, "no text");
  expect_refused(with([](auto& o) { o.vocab_size = 256; }), ErrorCode::usage, "at least 257");
  expect_refused(with([](auto& o) { o.special_tokens = {"<s>", "<s>"}; }), ErrorCode::usage, "twice");
  expect_refused(with([](auto& o) { o.special_tokens = {""}; }), ErrorCode::usage, "empty");
  expect_refused(with([](auto& o) { o.pattern = "(("; }), ErrorCode::usage, "--pattern");
  expect_refused(options(write("empty.txt", "")), ErrorCode::usage, "empty");
  expect_refused(options(write("bytes.txt", "fine\n\xFF\xFE\n")), ErrorCode::bad_file, "bytes.txt:2 is not UTF-8");
  expect_refused(options(write("a.jsonl", "{\"text\": 3}\n")), ErrorCode::bad_file, "a.jsonl:1 has no text \"text\"");
  expect_refused(options(folder_ / "none.txt"), ErrorCode::not_found, "none.txt");
  const TrainTokenizerOptions good = options(text);
  train_tokenizer(good);
  EXPECT_THROW(train_tokenizer(good), Error);
}

}  // namespace
}  // namespace kedge
