// Added tokens: found in the text before anything else, the longest first at each place.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "generate/tokenizer/regex.h"

namespace kedge {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;             ///< only where no word character stands beside it
  bool lstrip = false, rstrip = false;  ///< takes the white space beside it
  bool normalized = false;              ///< looked for after normalization
};

/// "added_tokens" of a tokenizer.json. Error(bad_file).
std::vector<AddedToken> parse_added_tokens(const nlohmann::ordered_json& json, const std::string& where);

/// A set of contents as a trie over bytes.
class AddedTokenMatcher {
 public:
  /// The pointer stays in use. content: what to look for (normalized, maybe); empty ones are skipped.
  void add(const AddedToken* token, std::string_view content);
  bool empty() const noexcept { return tokens_.empty(); }

  struct Part {
    Span span;
    std::int32_t id = -1;  ///< -1: ordinary text
  };
  /// All of `text` (valid UTF-8) in order.
  std::vector<Part> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at, std::size_t& length) const noexcept;

  std::array<bool, 256> starts_{};
  std::unordered_map<std::uint64_t, std::uint32_t> children_;    // node << 8 | byte -> node; the root is 0
  std::unordered_map<std::uint32_t, const AddedToken*> tokens_;  // by the node where they end
};

}  // namespace kedge
