#include "generate/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/json.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// A limit on the work per byte of text; real ones are below 100.
constexpr std::size_t max_content = 4096;

std::size_t previous_char(std::string_view text, std::size_t at) {
  do {
    --at;
  } while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool word_before(std::string_view text, std::size_t at) {
  if (at == 0) return false;
  std::size_t pos = previous_char(text, at);
  return unicode::is_word(unicode::next(text, pos));
}

bool word_after(std::string_view text, std::size_t at) {
  return at < text.size() && unicode::is_word(unicode::next(text, at));
}

std::size_t spaces_before(std::string_view text, std::size_t at, std::size_t lowest) {
  while (at > lowest) {
    const std::size_t begin = previous_char(text, at);
    std::size_t pos = begin;
    if (!unicode::is_space(unicode::next(text, pos))) break;
    at = begin;
  }
  return at;
}

std::size_t spaces_after(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    std::size_t pos = at;
    if (!unicode::is_space(unicode::next(text, pos))) break;
    at = pos;
  }
  return at;
}

}  // namespace

std::vector<AddedToken> parse_added_tokens(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  if (json.is_null()) return tokens;
  if (!json.is_array()) throw Error(ErrorCode::bad_file, where + " is not an array");
  for (const Json& entry : json) {
    if (!entry.is_object()) throw Error(ErrorCode::bad_file, where + " has an entry that is not an object");
    AddedToken token;
    const auto id = json_get<std::int64_t>(entry, "id", where);
    if (id < 0 || id > 0x7FFFFFFF)
      throw Error(ErrorCode::bad_file, where + ": id " + std::to_string(id) + " is out of range");
    token.id = static_cast<std::int32_t>(id);
    token.content = json_get<std::string>(entry, "content", where);
    if (token.content.size() > max_content) {
      throw Error(ErrorCode::bad_file, where + ": a token of " + std::to_string(token.content.size()) + " bytes",
                  "at most " + std::to_string(max_content));
    }
    token.special = json_get_or<bool>(entry, "special", false, where);
    token.single_word = json_get_or<bool>(entry, "single_word", false, where);
    token.lstrip = json_get_or<bool>(entry, "lstrip", false, where);
    token.rstrip = json_get_or<bool>(entry, "rstrip", false, where);
    token.normalized = json_get_or<bool>(entry, "normalized", !token.special, where);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void AddedTokenMatcher::add(const AddedToken* token, std::string_view content) {
  if (content.empty()) return;
  starts_[static_cast<std::uint8_t>(content[0])] = true;
  std::uint32_t node = 0;
  for (const char c : content) {
    const std::uint64_t edge = std::uint64_t{node} << 8 | static_cast<std::uint8_t>(c);
    node = children_.try_emplace(edge, static_cast<std::uint32_t>(children_.size() + 1)).first->second;
  }
  tokens_.try_emplace(node, token);
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, std::size_t at,
                                                std::size_t& length) const noexcept {
  const AddedToken* best = nullptr;
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto child = children_.find(std::uint64_t{node} << 8 | static_cast<std::uint8_t>(text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (const auto token = tokens_.find(node); token != tokens_.end()) {
      best = token->second;
      length = i + 1 - at;
    }
  }
  return best;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<Part> parts;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    std::size_t length = 0;
    const AddedToken* token = starts_[static_cast<std::uint8_t>(text[at])] ? longest_at(text, at, length) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + length;
    at = end;
    if (token->single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token->lstrip) begin = spaces_before(text, begin, done);
    if (token->rstrip) end = spaces_after(text, end);
    if (done < begin) parts.push_back({{done, begin}, -1});
    parts.push_back({{begin, end}, token->id});
    done = end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, -1});
  return parts;
}

}  // namespace kedge
