#include "generate/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "base/json.h"
#include "generate/tokenizer/normalizer.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// GPT-2's (openai/gpt-2, encoder.py).
constexpr const char* gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// \w+|[^\w\s]+ with UTS 18's \w, which is not Oniguruma's.
constexpr const char* words_pattern = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\s]+)";

void append_as_byte_chars(std::string_view bytes, std::string& out) {
  for (const char b : bytes) unicode::append(out, unicode::byte_to_char(static_cast<std::uint8_t>(b)));
}

}  // namespace

PreTokenizer PreTokenizer::parse(const Json& json, const std::string& where) {
  PreTokenizer pre_tokenizer;
  if (!json.is_null()) pre_tokenizer.add(json, where);
  return pre_tokenizer;
}

PreTokenizer::Behavior PreTokenizer::parse_behavior(const Json& json, const std::string& where) {
  const auto name = json_get<std::string>(json, "behavior", where);
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw Error(ErrorCode::unsupported, where + ": the behavior '" + name + "' is not known to kedge",
              "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

void PreTokenizer::add(const Json& json, const std::string& where) {
  const std::string type = part_type(json, where);
  if (type == "Sequence") {
    const auto list = json.find("pretokenizers");
    if (list == json.end() || !list->is_array())
      throw Error(ErrorCode::bad_file, where + ": a Sequence without \"pretokenizers\"");
    for (const Json& part : *list) add(part, where);
  } else if (type == "ByteLevel") {
    ByteLevel step;
    step.add_prefix_space = json_get_or<bool>(json, "add_prefix_space", true, where);
    if (json_get_or<bool>(json, "use_regex", true, where)) step.pattern = Pattern::regex(gpt2_pattern, where);
    steps_.emplace_back(std::move(step));
  } else if (type == "Split") {
    steps_.emplace_back(Split{parse_pattern(json, where), parse_behavior(json, where),
                              json_get_or<bool>(json, "invert", false, where)});
  } else if (type == "Digits") {
    const bool individual = json_get_or<bool>(json, "individual_digits", false, where);
    steps_.emplace_back(
        Split{Pattern::regex(R"(\p{N})", where), individual ? Behavior::isolated : Behavior::contiguous, false});
  } else if (type == "Punctuation") {
    const Behavior behavior = json.contains("behavior") ? parse_behavior(json, where) : Behavior::isolated;
    // ASCII's symbols count as punctuation too.
    steps_.emplace_back(Split{Pattern::regex(R"([\p{P}$+<=>^`|~])", where), behavior, false});
  } else if (type == "Whitespace") {
    steps_.emplace_back(Split{Pattern::regex(words_pattern, where), Behavior::removed, true});
  } else if (type == "WhitespaceSplit") {
    steps_.emplace_back(Split{Pattern::regex(R"(\s)", where), Behavior::removed, false});
  } else {
    throw Error(ErrorCode::unsupported, where + " '" + type + "' is not known to kedge",
                "Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace or WhitespaceSplit");
  }
}

void PreTokenizer::apply(Pieces& pieces, RegexScratch& scratch) const {
  for (const Step& step : steps_) {
    if (const auto* split = std::get_if<Split>(&step)) {
      apply_split(*split, pieces, scratch);
    } else {
      apply_byte_level(std::get<ByteLevel>(step), pieces, scratch);
    }
  }
}

void PreTokenizer::apply_split(const Split& step, Pieces& pieces, RegexScratch& scratch) {
  std::vector<Span> out;
  out.reserve(pieces.spans.size());
  std::vector<Pattern::Part> parts;
  std::vector<Span> cut;
  for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
    const std::size_t base = pieces.spans[i].begin;
    step.pattern.split(pieces[i], scratch, parts);
    if (step.invert) {
      for (Pattern::Part& part : parts) part.is_match = !part.is_match;
    }
    cut.clear();
    bool previous = false;
    switch (step.behavior) {
      case Behavior::isolated:
        for (const auto& [span, is_match] : parts) cut.push_back(span);
        break;
      case Behavior::removed:
        for (const auto& [span, is_match] : parts) {
          if (!is_match) cut.push_back(span);
        }
        break;
      case Behavior::contiguous:
        for (const auto& [span, is_match] : parts) {
          if (is_match == previous && !cut.empty()) {
            cut.back().end = span.end;
          } else {
            cut.push_back(span);
          }
          previous = is_match;
        }
        break;
      case Behavior::merged_with_previous:
        for (const auto& [span, is_match] : parts) {
          if (is_match && !previous && !cut.empty()) {
            cut.back().end = span.end;
          } else {
            cut.push_back(span);
          }
          previous = is_match;
        }
        break;
      case Behavior::merged_with_next:
        for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
          if (part->is_match && !previous && !cut.empty()) {
            cut.back().begin = part->span.begin;
          } else {
            cut.push_back(part->span);
          }
          previous = part->is_match;
        }
        std::reverse(cut.begin(), cut.end());
        break;
    }
    for (const Span& span : cut) {
      if (span.begin != span.end) out.push_back({base + span.begin, base + span.end});
    }
  }
  pieces.spans = std::move(out);
}

void PreTokenizer::apply_byte_level(const ByteLevel& step, Pieces& pieces, RegexScratch& scratch) {
  Pieces out;
  out.text.reserve(pieces.text.size() + pieces.text.size() / 4);
  out.spans.reserve(pieces.spans.size());
  std::vector<Pattern::Part> parts;
  std::string prefixed;
  for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
    std::string_view piece = pieces[i];
    if (step.add_prefix_space && !piece.starts_with(' ')) {
      prefixed.assign(1, ' ').append(piece);
      piece = prefixed;
    }
    parts.clear();
    if (step.pattern.has_value()) {
      step.pattern->split(piece, scratch, parts);
    } else {
      parts.push_back({{0, piece.size()}, false});
    }
    for (const auto& [span, is_match] : parts) {
      const std::size_t begin = out.text.size();
      append_as_byte_chars(piece.substr(span.begin, span.end - span.begin), out.text);
      if (out.text.size() != begin) out.spans.push_back({begin, out.text.size()});
    }
  }
  pieces = std::move(out);
}

}  // namespace kedge
