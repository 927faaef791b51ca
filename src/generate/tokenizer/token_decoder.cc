#include "generate/tokenizer/token_decoder.h"

#include <utility>

#include "base/json.h"
#include "generate/tokenizer/normalizer.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

std::string join(const std::vector<std::string>& tokens, std::string_view separator = {}) {
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += separator;
    out += tokens[i];
  }
  return out;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte of "<0xXX>", or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// Runs of byte tokens become their text, or one U+FFFD per byte when they are no UTF-8.
std::vector<std::string> byte_fallback(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (unicode::is_valid(bytes)) {
      out.push_back(bytes);
    } else {
      for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  return out;
}

std::string strip_token(std::string_view token, std::string_view content, std::int64_t start, std::int64_t stop) {
  if (content.empty()) return std::string(token);
  for (std::int64_t i = 0; i < start && token.starts_with(content); ++i) token.remove_prefix(content.size());
  for (std::int64_t i = 0; i < stop && token.ends_with(content); ++i) token.remove_suffix(content.size());
  return std::string(token);
}

}  // namespace

std::string byte_level_bytes(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (std::size_t pos = 0; pos < token.size();) {
    const int byte = unicode::char_to_byte(unicode::next(token, pos));
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

TokenDecoder TokenDecoder::parse(const Json& json, const std::string& where) {
  TokenDecoder decoder;
  if (json.is_null()) {
    decoder.joined_with_spaces_ = true;
  } else {
    decoder.add(json, where);
  }
  return decoder;
}

void TokenDecoder::add(const Json& json, const std::string& where) {
  const std::string type = part_type(json, where);
  if (type == "Sequence") {
    const auto list = json.find("decoders");
    if (list == json.end() || !list->is_array())
      throw Error(ErrorCode::bad_file, where + ": a Sequence without \"decoders\"");
    for (const Json& part : *list) add(part, where);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else if (type == "Replace") {
    steps_.emplace_back(Replace{parse_pattern(json, where), json_get<std::string>(json, "content", where)});
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.emplace_back(Fuse{});
  } else if (type == "Strip") {
    steps_.emplace_back(Strip{json_get<std::string>(json, "content", where),
                              json_get_or<std::int64_t>(json, "start", 0, where),
                              json_get_or<std::int64_t>(json, "stop", 0, where)});
  } else {
    throw Error(ErrorCode::unsupported, where + " '" + type + "' is not known to kedge",
                "Sequence, ByteLevel, Replace, ByteFallback, Fuse or Strip");
  }
}

bool TokenDecoder::is_byte_level() const noexcept {
  return steps_.size() == 1 && std::holds_alternative<ByteLevel>(steps_[0]);
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  RegexScratch scratch;
  for (const Step& step : steps_) {
    if (std::holds_alternative<ByteLevel>(step)) {
      for (std::string& token : tokens) token = byte_level_bytes(token);
      tokens = {unicode::to_valid(join(tokens))};
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      for (std::string& token : tokens) token = replace_all(token, replace->pattern, replace->content, scratch);
    } else if (std::holds_alternative<ByteFallback>(step)) {
      tokens = byte_fallback(std::move(tokens));
    } else if (const auto* strip = std::get_if<Strip>(&step)) {
      for (std::string& token : tokens) token = strip_token(token, strip->content, strip->start, strip->stop);
    } else {
      tokens = {join(tokens)};
    }
  }
  return join(tokens, joined_with_spaces_ ? " " : "");
}

}  // namespace kedge
