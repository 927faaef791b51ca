#include "ptq/calibration_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"
#include "ptq/calibration_text.h"

namespace kedge {
namespace {

using Ids = std::vector<std::int32_t>;

const std::filesystem::path root = KEDGE_SOURCE_DIR;

class Calibration : public testing::Test {
 protected:
  Calibration() : tokenizer_(Tokenizer::open(root / "models/demo-4m")) {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("kedge_calibration_") + info->name());
    std::filesystem::create_directories(folder_);
  }
  ~Calibration() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path file(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  CalibrationData read(const CalibrationOptions& options) { return read_calibration(options, tokenizer_, model_); }

  // Of texts that fill less than one sequence: the packed ids in order.
  Ids packed(std::vector<std::filesystem::path> files, const std::string& field = "text") {
    CalibrationOptions options{.files = std::move(files), .field = field, .nsamples = 0, .seqlen = 1024};
    const CalibrationData data = read(options);
    EXPECT_EQ(data.sequences.size(), 1u);
    return data.sequences.at(0);
  }

  void expect_error(const CalibrationOptions& options, ErrorCode code, const std::string& part) {
    try {
      read(options);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  }

  Ids encode(const std::string& text) { return tokenizer_.encode(text); }

  Tokenizer tokenizer_;
  CalibrationModel model_{1024, 4096};
  std::filesystem::path folder_;
};

TEST_F(Calibration, BundledTextIsTheFileInTheTree) {
  EXPECT_EQ(bundled_calibration_text(), read_file(root / "models/calibration-text.txt"));
}

// The hashes were computed in Python: ids of the `tokenizers` library, xoshiro256** and Fisher-Yates written anew.
TEST_F(Calibration, PacksAndChoosesAsComputedElsewhere) {
  const CalibrationData data = read({});
  EXPECT_EQ(data.seqlen, 1024);
  EXPECT_EQ(data.sequences.size(), 128u);
  EXPECT_EQ(data.tokens_read, 174733);
  EXPECT_EQ(data.sequences_available, 170);
  EXPECT_EQ(data.tokens_dropped, 653);
  EXPECT_EQ(data.ids_hash, "6c261e60315436dffe0e528e7808d23d958ecb0329a8b774dd77ce67966d0156");
  const CalibrationData few = read({.nsamples = 8, .seqlen = 256, .seed = 7});
  EXPECT_EQ(few.ids_hash, "e5dd2963b71a85cc5022a7654c88c41191a665faf4a3b7d6c6e232480c3406b6");
  EXPECT_NE(read({.nsamples = 8, .seqlen = 256, .seed = 8}).ids_hash, few.ids_hash);
}

// Calibrating on the text that is measured would flatter the result.
TEST_F(Calibration, BundledTextSharesNothingWithTheDemoText) {
  const std::string demo = read_file(root / "models/demo-text.txt");
  std::set<std::string_view> lines;
  for (std::size_t begin = 0; begin < demo.size();) {
    const std::size_t end = std::min(demo.find('\n', begin), demo.size());
    if (end - begin > 40) lines.insert(std::string_view(demo).substr(begin, end - begin));
    begin = end + 1;
  }
  ASSERT_GT(lines.size(), 1000u);
  for (const std::string_view line : lines) {
    EXPECT_EQ(bundled_calibration_text().find(line.substr(0, 40)), std::string_view::npos) << line;
  }
}

TEST_F(Calibration, DocumentsStandBetweenEosTokens) {
  const auto a = file("a.txt", "one two three");
  const auto b =
      file("b.jsonl", "{\"id\": 1, \"text\": \"four five\"}\r\n\n{\"text\": \"\"}\n{\"text\": \"six \\u00e9\"}");
  Ids expected = encode("one two three");
  for (const char* text : {"four five", "six \u00e9"}) {
    expected.push_back(0);
    const Ids ids = encode(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(packed({a, b}), expected);
  const CalibrationData data = read({.files = {a, b}, .nsamples = 0});
  ASSERT_EQ(data.sources.size(), 2u);
  EXPECT_EQ(data.sources[1].name, "b.jsonl");
  EXPECT_EQ(data.sources[1].documents, 3);
  EXPECT_EQ(data.sources[1].empty_documents, 1);
  EXPECT_EQ(data.documents(), 4);
  EXPECT_EQ(data.tokens_read, data.sources[0].tokens + data.sources[1].tokens + 2);
}

TEST_F(Calibration, AnotherField) {
  const auto a = file("a.jsonl", "{\"text\": \"no\", \"content\": \"one two\"}\n");
  EXPECT_EQ(packed({a}, "content"), encode("one two"));
}

TEST_F(Calibration, RendersMessages) {
  const ChatTemplate chat = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}{{ tools | tojson }}", "test",
      {{"eos_token", "<|endoftext|>"}});
  model_.chat_template = [&] { return &chat; };
  const auto a =
      file("a.jsonl",
           "{\"chat\": [{\"role\": \"user\", \"content\": \"one\"}], \"tools\": [1]}\n{\"chat\": \"plain\"}\n"
           "{\"chat\": [{\"role\": \"user\", \"content\": \"two\"}]}\n");
  Ids expected;
  for (const char* text : {"[user] one<|endoftext|>[1]", "plain", "<|endoftext|>", "[user] two<|endoftext|>null"}) {
    const Ids ids = encode(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(packed({a}, "chat"), expected);
  EXPECT_EQ(read({.files = {a}, .field = "chat"}).sources[0].chats, 2);
}

TEST_F(Calibration, ComplainsAboutMessages) {
  const auto a = file("a.jsonl", "{\"text\": \"x\"}\n{\"text\": [{\"role\": \"user\", \"content\": \"one\"}]}\n");
  expect_error({.files = {a}}, ErrorCode::unsupported, "a.jsonl, line 2, has chat messages, and the model has no chat");
  const ChatTemplate chat = ChatTemplate::parse("{{ raise_exception('only systems') }}", "test");
  model_.chat_template = [&] { return &chat; };
  expect_error({.files = {a}}, ErrorCode::usage,
               "a.jsonl, line 2, cannot be rendered: test, line 1: the chat template");
  expect_error({.files = {file("b.jsonl", "{\"text\": [1]}")}}, ErrorCode::usage,
               "b.jsonl, line 1, cannot be rendered");
}

TEST_F(Calibration, WithoutAnEosTokenNothingStandsBetween) {
  const Tokenizer bare =
      Tokenizer::parse(read_file(root / "models/demo-4m/tokenizer.json"), "models/demo-4m/tokenizer.json");
  ASSERT_EQ(bare.eos_id(), -1);
  const CalibrationData data =
      read_calibration({.files = {file("a.jsonl", "{\"text\": \"one two\"}\n{\"text\": \"three\"}\n")}}, bare, model_);
  Ids expected = encode("one two");
  const Ids more = encode("three");
  expected.insert(expected.end(), more.begin(), more.end());
  ASSERT_EQ(data.sequences.size(), 1u);
  EXPECT_EQ(data.sequences[0], expected);
}

TEST_F(Calibration, EverySequenceOnceAndTheRestCounted) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += "word" + std::to_string(i) + " ";
  const Ids ids = encode(text);
  const auto a = file("a", text);
  const CalibrationData data = read({.files = {a}, .nsamples = 0, .seqlen = 16});
  EXPECT_EQ(data.tokens() + data.tokens_dropped, static_cast<std::int64_t>(ids.size()));
  std::multiset<Ids> seen(data.sequences.begin(), data.sequences.end()), expected;
  for (std::size_t begin = 0; begin + 16 <= ids.size(); begin += 16) {
    expected.emplace(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                     ids.begin() + static_cast<std::ptrdiff_t>(begin + 16));
  }
  EXPECT_EQ(seen, expected);
  const CalibrationData more = read({.files = {a}, .nsamples = 100000, .seqlen = 16});
  EXPECT_EQ(more.ids_hash, data.ids_hash);  // more were asked for than there are
}

TEST_F(Calibration, SelectsSequences) {
  const CalibrationData data = read({.nsamples = 8, .seqlen = 256, .seed = 7});
  const std::vector<std::int64_t> none_moved{0, 1, 2, 3, 4, 5, 6, 7}, two{5, 1};
  EXPECT_EQ(select_sequences(data, none_moved).ids_hash, data.ids_hash);
  const CalibrationData chosen = select_sequences(data, two);
  ASSERT_EQ(chosen.sequences.size(), 2u);
  EXPECT_EQ(chosen.sequences[0], data.sequences[5]);
  EXPECT_EQ(chosen.sequences[1], data.sequences[1]);
  EXPECT_NE(chosen.ids_hash, data.ids_hash);
}

TEST_F(Calibration, TellsWhatAManifestNeedsWithoutPaths) {
  const Json json = to_json(read({.files = {file("a.txt", "one two three")}}));
  EXPECT_EQ(json.at("sources").at(0).at("name"), "a.txt");
  EXPECT_EQ(json.at("sequences"), 1);
  EXPECT_EQ(json.dump().find(folder_.string()), std::string::npos);
}

TEST_F(Calibration, ComplainsAboutOptions) {
  const auto a = file("a", "one two three");
  expect_error({.files = {a}, .seqlen = 1}, ErrorCode::usage, "sequence length of 1: expected 2 to 1024");
  expect_error({.files = {a}, .seqlen = 1025}, ErrorCode::usage, "the model's context");
  expect_error({.files = {a}, .nsamples = -1}, ErrorCode::usage, "-1 calibration sequences");
  expect_error({.files = {folder_ / "none"}}, ErrorCode::not_found, "none");
}

TEST_F(Calibration, ComplainsAboutTexts) {
  expect_error({.files = {file("empty", "")}}, ErrorCode::usage, "empty is empty");
  expect_error({.files = {file("one", "a")}}, ErrorCode::usage, "only 1 tokens");
  expect_error({.files = {file("blank.jsonl", "\n \n")}}, ErrorCode::usage, "no document");
  expect_error({.files = {file("nothing.jsonl", "{\"text\": \"\"}")}}, ErrorCode::usage, "only 0 tokens");
  expect_error({.files = {file("latin1", "one\ncaf\xe9\n")}}, ErrorCode::bad_file, "latin1 is not UTF-8 at line 2");
  expect_error({.files = {file("f.jsonl", "{\"text\": \"a b\"}\n{\"body\": \"c\", \"n\": 1}")}}, ErrorCode::bad_file,
               "f.jsonl, line 2, has no field \"text\": expected one of the line's fields: body, n");
  expect_error({.files = {file("n.jsonl", "{\"text\": 3}")}}, ErrorCode::bad_file, "n.jsonl, line 1, is no text");
  expect_error({.files = {file("l.jsonl", "[1]")}}, ErrorCode::bad_file, "l.jsonl, line 1, is no JSON object");
  expect_error({.files = {file("b.jsonl", "{\"text\": \"a\"}\n{\"text\": ")}}, ErrorCode::bad_file,
               "b.jsonl, line 2, is not valid JSON");
}

TEST_F(Calibration, ComplainsAboutAForeignTokenizer) {
  model_.vocab_size = 100;
  expect_error({}, ErrorCode::mismatch, "ids below 100");
}

}  // namespace
}  // namespace kedge
