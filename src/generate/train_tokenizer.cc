#include "kedge/tokenizer.h"

#include <chrono>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "generate/corpus.h"
#include "generate/tokenizer.h"
#include "generate/tokenizer/bpe_trainer.h"
#include "generate/tokenizer/pre_tokenizer.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

Json pre_tokenizer(const std::string& pattern) {
  const auto byte_level = [](bool use_regex) {
    return Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
  };
  if (pattern.empty()) return byte_level(true);
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(false)})}};
}

// Counts the pieces of texts.
class WordCounter {
 public:
  explicit WordCounter(const std::string& pattern) try
      : pre_tokenizer_(PreTokenizer::parse(pre_tokenizer(pattern), "--pattern")) {
  } catch (const Error& error) {
    throw Error(ErrorCode::usage, error.what());
  }

  void add(std::string_view text) {
    bytes_ += std::int64_t(text.size());
    Pieces pieces{std::string(text), {{0, text.size()}}};
    pre_tokenizer_.apply(pieces, scratch_);
    for (std::size_t i = 0; i < pieces.spans.size(); ++i) ++counts_[std::string(pieces[i])];
  }
  const WordCounts& counts() const noexcept { return counts_; }
  std::int64_t bytes() const noexcept { return bytes_; }

 private:
  PreTokenizer pre_tokenizer_;
  RegexScratch scratch_;
  WordCounts counts_;
  std::int64_t bytes_ = 0;
};

// f(line with its end, number), numbers from 1.
template <class F>
void for_each_line(std::string_view text, F f) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const std::size_t bytes = end == std::string_view::npos ? text.size() : end + 1;
    f(text.substr(0, bytes), number);
    text.remove_prefix(bytes);
  }
}

std::string json_line(std::string_view line, const std::string& where, const std::string& field) {
  const Json value = parse_json(line, where);
  const auto at = value.is_object() ? value.find(field) : value.end();
  if (!value.is_object() || at == value.end() || !at->is_string()) {
    throw Error(ErrorCode::bad_file, where + " has no text \"" + field + "\"", "an object with that member",
                "name another with --field");
  }
  return at->get<std::string>();
}

void count_file(const fs::path& file, const std::string& field, WordCounter& counter) {
  const std::string text = read_text(file);
  const bool json_lines = file.extension() == ".jsonl";
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (number % 4096 == 0) throw_if_interrupted();
    const std::string where = fmt::format("{}:{}", file.string(), number);
    if (!unicode::is_valid(line)) throw Error(ErrorCode::bad_file, where + " is not UTF-8", "UTF-8 text");
    if (!json_lines) return counter.add(line);
    if (line.find_first_not_of(" \t\r\n") != std::string_view::npos) counter.add(json_line(line, where, field));
  });
}

std::vector<std::string> byte_alphabet() {
  std::vector<std::string> out(256);
  for (int byte = 0; byte < 256; ++byte) {
    unicode::append(out[static_cast<std::size_t>(byte)], unicode::byte_to_char(static_cast<std::uint8_t>(byte)));
  }
  return out;
}

void check(const TrainTokenizerOptions& options) {
  if (options.texts.empty()) throw Error(ErrorCode::usage, "no text was given", "at least one file to learn from");
  if (options.out.empty()) throw Error(ErrorCode::usage, "no folder to write was given");
  std::set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (token.empty() || !unicode::is_valid(token)) {
      throw Error(ErrorCode::usage, "a special token is empty or not UTF-8", "a text such as <|endoftext|>");
    }
    if (!seen.insert(token).second) throw Error(ErrorCode::usage, "the special token " + token + " is there twice");
  }
  const auto least = static_cast<std::int64_t>(256 + options.special_tokens.size());
  if (options.vocab_size < least || options.vocab_size > (1 << 30)) {
    throw Error(ErrorCode::usage, fmt::format("a vocabulary of {} tokens", options.vocab_size),
                fmt::format("at least {}: the bytes and the special tokens", least));
  }
  if (fs::exists(options.out / "tokenizer.json")) {
    throw Error(ErrorCode::exists, (options.out / "tokenizer.json").string() + " exists", "a folder without one");
  }
}

Json tokenizer_json(const TrainTokenizerOptions& options, const TrainedBpe& bpe) {
  Json added = Json::array(), vocab = Json::object(), merges = Json::array();
  for (std::size_t id = 0; id < options.special_tokens.size(); ++id) {
    added.push_back({{"id", id},
                     {"content", options.special_tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  // Each token once; operator[] would look through all earlier ones.
  auto& members = static_cast<Json::object_t::Container&>(vocab.get_ref<Json::object_t&>());
  for (std::size_t id = 0; id < bpe.vocab.size(); ++id) members.emplace_back(bpe.vocab[id], id);
  for (const auto& [left, right] : bpe.merges) merges.push_back({left, right});
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr},
          {"pre_tokenizer", pre_tokenizer(options.pattern)},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

Json tokenizer_config(const TrainTokenizerOptions& options) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  if (options.special_tokens.empty()) return config;
  for (const char* key : {"bos_token", "eos_token", "pad_token"}) config[key] = options.special_tokens.front();
  return config;
}

double bytes_per_token(const Tokenizer& tokenizer, const WordCounter& counter) {
  // Pieces of the byte alphabet: the file's own text is encoded anew through the tokens of each piece.
  std::int64_t tokens = 0;
  for (const auto& [word, count] : counter.counts()) {
    std::string bytes;
    for (std::size_t at = 0; at < word.size();) {
      bytes += static_cast<char>(unicode::char_to_byte(unicode::next(word, at)));
    }
    tokens += count * static_cast<std::int64_t>(tokenizer.encode(bytes).size());
  }
  return tokens == 0 ? 0 : double(counter.bytes()) / double(tokens);
}

}  // namespace

TrainTokenizerReport train_tokenizer(const TrainTokenizerOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  check(options);
  WordCounter counter(options.pattern);
  for (const fs::path& file : options.texts) count_file(file, options.field, counter);
  Progress progress("learning", options.vocab_size, "tokens");
  const TrainedBpe bpe = train_bpe(counter.counts(), {options.vocab_size, options.min_frequency, options.special_tokens,
                                                      byte_alphabet(), [&](std::int64_t tokens) {
                                                        throw_if_interrupted();
                                                        progress.update(tokens);
                                                      }});
  progress.finish();
  const std::string text = tokenizer_json(options, bpe).dump(2, ' ', false) + "\n";
  const Tokenizer tokenizer = Tokenizer::parse(text, "the new tokenizer");
  std::error_code error;
  fs::create_directories(options.out, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + options.out.string() + ": " + error.message());
  write_file_atomically(options.out / "tokenizer_config.json", tokenizer_config(options).dump(2) + "\n");
  write_file_atomically(options.out / "tokenizer.json", text);

  TrainTokenizerReport report;
  report.vocab_size = static_cast<std::int64_t>(bpe.vocab.size());
  report.merges = static_cast<std::int64_t>(bpe.merges.size());
  report.words = static_cast<std::int64_t>(counter.counts().size());
  report.bytes = counter.bytes();
  report.bytes_per_token = bytes_per_token(tokenizer, counter);
  report.content_hash = tokenizer.content_hash();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace kedge
