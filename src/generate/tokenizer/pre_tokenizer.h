// Pre-tokenizers of tokenizer.json: they cut a text into pieces, which the model then tokenizes one by one.
//
// Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit. Gaps between matches are pieces too.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "generate/tokenizer/regex.h"

namespace kedge {

/// A text and the pieces that are left of it, in order, none of them empty.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
  std::string_view operator[](std::size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

class PreTokenizer {
 public:
  /// json: the "pre_tokenizer" value, null for none. Error(unsupported), Error(bad_file).
  static PreTokenizer parse(const nlohmann::ordered_json& json, const std::string& where);
  /// pieces: as a normalizer left them (one span). Valid UTF-8.
  void apply(Pieces& pieces, RegexScratch& scratch) const;

 private:
  /// What becomes of the matches; words as in the file.
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Split {
    Pattern pattern;
    Behavior behavior = Behavior::isolated;
    bool invert = false;
  };
  struct ByteLevel {
    bool add_prefix_space = false;
    std::optional<Pattern> pattern;
  };
  using Step = std::variant<Split, ByteLevel>;

  void add(const nlohmann::ordered_json& json, const std::string& where);
  static Behavior parse_behavior(const nlohmann::ordered_json& json, const std::string& where);
  static void apply_split(const Split& step, Pieces& pieces, RegexScratch& scratch);
  static void apply_byte_level(const ByteLevel& step, Pieces& pieces, RegexScratch& scratch);
  std::vector<Step> steps_;
};

}  // namespace kedge
