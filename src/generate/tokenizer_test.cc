#include "generate/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

using Ids = std::vector<std::int32_t>;

const std::filesystem::path root = KEDGE_SOURCE_DIR;

const Tokenizer& demo() {
  static const Tokenizer tokenizer = Tokenizer::open(root / "models/demo-4m");
  return tokenizer;
}

// A byte-level tokenizer.json of three letters; `edit` changes the document.
template <class F>
std::string document(F&& edit) {
  Json json = parse_json(R"({"added_tokens": [{"id": 5, "content": "<end>", "special": true}], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4}, "merges": ["a b", ["ab", "c"]]}})",
                         "test");
  edit(json);
  return json.dump();
}

ErrorCode parse_error(const std::string& text, std::string* message = nullptr) {
  try {
    Tokenizer::parse(text, "t.json");
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "accepted: " << text;
  return ErrorCode::io;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens = false) {
  Detokenizer detokenizer(tokenizer, skip_special_tokens);
  std::string out;
  for (const auto id : ids) out += detokenizer.push(id);
  return out + detokenizer.flush();
}

TEST(Tokenizer, EqualsTransformersOnTheBundledModel) {
  const Json expected = read_json(root / "tests/goldens/demo-4m.expected.json");
  for (const Json& entry : expected["tokenizer"]) {
    EXPECT_EQ(demo().encode(entry["text"].get<std::string>()), entry["ids"].get<Ids>()) << entry["text"];
  }
  for (const Json& entry : expected["greedy"]) {
    EXPECT_EQ(demo().encode(entry["prompt"].get<std::string>()), entry["prompt_ids"].get<Ids>());
    EXPECT_EQ(demo().decode(entry["greedy_ids"].get<Ids>()), entry["text"].get<std::string>());
    EXPECT_EQ(stream(demo(), entry["greedy_ids"].get<Ids>()), entry["text"].get<std::string>());
  }
}

class TokenizerFixture : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerFixture, EqualsTheTokenizersLibrary) {
  const Json fixture = read_json(root / "tests/fixtures/tokenizers" / (GetParam() + ".json"));
  const Tokenizer tokenizer = Tokenizer::parse(fixture["tokenizer"].dump(), GetParam());
  ASSERT_GT(fixture["cases"].size(), 50u);
  for (const Json& entry : fixture["cases"]) {
    const auto text = entry["text"].get<std::string>();
    const Ids ids = entry["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(text), ids) << entry["text"];
    const Ids with_special =
        entry.contains("ids_with_special_tokens") ? entry["ids_with_special_tokens"].get<Ids>() : ids;
    EXPECT_EQ(tokenizer.encode(text, true), with_special) << entry["text"];
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>()) << entry["text"];
    EXPECT_EQ(stream(tokenizer, ids), entry["decoded"].get<std::string>()) << entry["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerFixture,
                         testing::Values("gpt2_prefix_space", "qwen_nfc", "o200k_ignore_merges", "deepseek",
                                         "lower_nfkd", "split_removed", "split_isolated", "split_merged_with_previous",
                                         "split_merged_with_next", "split_contiguous", "byte_fallback", "fuse_unk",
                                         "single_unk"),
                         [](const auto& info) { return info.param; });

TEST(Tokenizer, NoFixtureIsForgotten) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root / "tests/fixtures/tokenizers"))
    files += entry.path().extension() == ".json";
  EXPECT_EQ(files, 13u);
}

TEST(Tokenizer, BytesComeBackThroughTheBundledModel) {
  std::string bytes;
  for (int round = 0; round < 2; ++round) {
    for (int c = 0; c < 0x3000; c += 7) {
      if (c < 0x80) {
        bytes += static_cast<char>(c);
      } else if (c < 0x800) {
        bytes += static_cast<char>(0xC0 | c >> 6);
        bytes += static_cast<char>(0x80 | (c & 0x3F));
      } else {
        bytes += static_cast<char>(0xE0 | c >> 12);
        bytes += static_cast<char>(0x80 | (c >> 6 & 0x3F));
        bytes += static_cast<char>(0x80 | (c & 0x3F));
      }
    }
  }
  const Ids ids = demo().encode(bytes);
  EXPECT_EQ(demo().decode(ids), bytes);
  EXPECT_EQ(stream(demo(), ids), bytes);
}

TEST(Tokenizer, LongTextsTakeLinearTime) {
  const auto seconds = [](const std::string& text) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(demo().encode(text).empty());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // Quadratic work on a megabyte is minutes; the limit leaves room for sanitizers on a busy machine.
  const std::size_t megabyte = 1 << 20;
  std::string combining;
  while (combining.size() < megabyte) combining += "\xCC\x81";
  for (const std::string& text :
       {std::string(megabyte, 'a'), std::string(megabyte, ' '), std::string(megabyte, '\n'), combining}) {
    EXPECT_LT(seconds(text), 20.0);
  }
}

TEST(Tokenizer, LongRunsOfMarksAreNormalizedInTime) {
  const Json fixture = read_json(root / "tests/fixtures/tokenizers/qwen_nfc.json");
  const Tokenizer tokenizer = Tokenizer::parse(fixture["tokenizer"].dump(), "qwen_nfc");
  std::string marks;
  while (marks.size() < 400000) marks += "\xCC\x81\xCC\xA3";  // out of order: classes 230 and 220
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tokenizer.encode(marks).empty());
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20.0);
}

TEST(Tokenizer, InvalidUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(demo().encode("a\xFF\xE2\x82z\xF0\x9F"), demo().encode("a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD"));
}

TEST(Tokenizer, ManyThreadsMayEncode) {
  const std::string text = read_file(root / "models/demo-text.txt");
  const Ids expected = demo().encode(text);
  std::vector<Ids> results(3);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = demo().encode(text); });
  for (auto& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, LooksUpTokens) {
  EXPECT_EQ(demo().vocab_size(), 4096);
  EXPECT_EQ(demo().token_to_id("<|endoftext|>"), 0);
  EXPECT_EQ(demo().token_to_id("no such token"), -1);
  EXPECT_EQ(demo().id_to_token(0), "<|endoftext|>");
  EXPECT_EQ(demo().id_to_token(4096), "");
  EXPECT_EQ(demo().id_to_token(-1), "");
  EXPECT_TRUE(demo().is_special(0));
  EXPECT_FALSE(demo().is_special(1));
  EXPECT_FALSE(demo().is_special(-1));
  EXPECT_EQ(demo().bos_id(), 0);
  EXPECT_EQ(demo().eos_id(), 0);
  EXPECT_EQ(demo().token_bytes(demo().encode(" the").at(0)), " the");
  EXPECT_EQ(demo().decode(Ids{0, 40, 99999, -5}), "<|endoftext|>H");
  EXPECT_EQ(demo().decode(Ids{0, 40}, true), "H");
}

TEST(Detokenizer, HoldsIncompleteSequences) {
  const Ids ids = demo().encode("\xF0\x9F\x99\x82!");  // four bytes of one character in several tokens
  ASSERT_GT(ids.size(), 2u);
  Detokenizer detokenizer(demo());
  std::string out;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string piece = detokenizer.push(ids[i]);
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
    out += piece;
  }
  EXPECT_EQ(out, "\xF0\x9F\x99\x82!");
  EXPECT_EQ(detokenizer.flush(), "");
  detokenizer.push(ids[0]);
  EXPECT_EQ(detokenizer.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream(demo(), Ids{0, 40}, true), "H");
}

TEST(Tokenizer, HashTellsTokenizersApart) {
  const auto hash = [](const std::string& text) { return Tokenizer::parse(text, "t.json").content_hash(); };
  const std::string same = document([](Json&) {});
  EXPECT_EQ(hash(same), hash(document([](Json& j) { j["model"]["merges"] = {Json::array({"a", "b"}), "ab c"}; })));
  EXPECT_EQ(hash(same), hash(parse_json(same, "t").dump(2)));
  EXPECT_NE(hash(same), hash(document([](Json& j) { j["model"]["merges"] = {"a b"}; })));
  EXPECT_NE(hash(same), hash(document([](Json& j) { j["added_tokens"][0]["content"] = "<stop>"; })));
  EXPECT_NE(hash(same), hash(document([](Json& j) { j["normalizer"] = {{"type", "NFC"}}; })));
  EXPECT_NE(hash(same), hash(document([](Json& j) { j["model"]["vocab"]["d"] = 6; })));
}

TEST(Tokenizer, ReadsBothKindsOfMerges) {
  const Tokenizer tokenizer = Tokenizer::parse(document([](Json&) {}), "t.json");
  EXPECT_EQ(tokenizer.encode("abcab<end>a"), (Ids{4, 2, 5, 0}));
  EXPECT_EQ(tokenizer.encode("xyz"), Ids{});  // no unk_token: unknown bytes vanish, as in tokenizers
}

TEST(Tokenizer, SaysWhatIsWrongWithAFile) {
  const auto code = [](auto&& edit) { return parse_error(document(edit)); };
  EXPECT_EQ(parse_error("{"), ErrorCode::bad_file);
  EXPECT_EQ(parse_error("[]"), ErrorCode::bad_file);
  EXPECT_EQ(parse_error("{}"), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"].erase("merges"); }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"].erase("vocab"); }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["merges"][0] = "a x"; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["merges"][0] = "ab"; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["merges"][0] = 3; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["vocab"]["c"] = 2; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["vocab"]["c"] = -1; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["vocab"]["c"] = 4000000000u; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["vocab"]["c"] = 500000000; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["vocab"]["c"] = "3"; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["added_tokens"][0]["id"] = 3; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["added_tokens"][0]["id"] = -1; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["added_tokens"][0]["content"] = "ab"; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) { j["model"]["unk_token"] = "?"; }), ErrorCode::bad_file);
  EXPECT_EQ(code([](Json& j) {
              j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "x"}}}}}}};
            }),
            ErrorCode::bad_file);
  EXPECT_EQ(parse_error(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})"), ErrorCode::bad_file);
}

TEST(Tokenizer, NamesThePartThatItDoesNotHave) {
  const auto refuses = [](auto&& edit, const std::string& part) {
    std::string message;
    EXPECT_EQ(parse_error(document(edit), &message), ErrorCode::unsupported);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  refuses([](Json& j) { j["model"]["type"] = "Unigram"; }, "Unigram");
  refuses([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix");
  refuses([](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout");
  refuses([](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; }, "Metaspace");
  refuses([](Json& j) { j["normalizer"] = {{"type", "Precompiled"}}; }, "Precompiled");
  refuses([](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }, "WordPiece");
  refuses([](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; }, "BertProcessing");
  const auto split = [](const char* regex) {
    return [regex](Json& j) {
      j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
    };
  };
  refuses(split("(a"), "(a");
  refuses(split("[a[bc]]"), "class inside a class");
  refuses(split("[a&&b]"), "intersection");
  refuses(split("a{1,3}+"), "interval");
  refuses(split("[^\\S]"), "\\S");
}

TEST(Tokenizer, AnExpressionThatBacktracksWithoutEndIsAnError) {
  const Tokenizer tokenizer = Tokenizer::parse(
      document([](Json& j) {
        j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a+)+$"}}}, {"behavior", "Isolated"}};
      }),
      "t.json");
  try {
    tokenizer.encode(std::string(60, 'a') + "!");
    FAIL() << "finished";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
}

TEST(Tokenizer, AShortTextCannotFillTheMemory) {
  const Tokenizer tokenizer =
      Tokenizer::parse(document([](Json& j) {
                         Json steps = Json::array();
                         for (int i = 0; i < 50; ++i)
                           steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
                         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
                       }),
                       "t.json");
  try {
    tokenizer.encode("a");
    FAIL() << "finished";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
}

TEST(Tokenizer, MissingFileIsNotFound) {
  try {
    Tokenizer::open(root / "src");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
  }
}

}  // namespace
}  // namespace kedge
