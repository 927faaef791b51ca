// Normalizers of tokenizer.json: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, StripAccents.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "generate/tokenizer/regex.h"

namespace kedge {

class Normalizer {
 public:
  /// json: the "normalizer" value, null for none. Error(unsupported), Error(bad_file).
  static Normalizer parse(const nlohmann::ordered_json& json, const std::string& where);

  bool empty() const noexcept { return steps_.empty(); }
  /// text: valid UTF-8. Error(unsupported) beyond growth_limit().
  std::string apply(std::string text, RegexScratch& scratch) const;

 private:
  struct UnicodeForm {
    bool compose = false, compatibility = false;
  };
  struct Lowercase {};
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Strip {
    bool left = false, right = false;
  };
  struct StripAccents {};
  using Step = std::variant<UnicodeForm, Lowercase, Prepend, Replace, Strip, StripAccents>;

  void add(const nlohmann::ordered_json& json, const std::string& where);
  std::vector<Step> steps_;
};

/// "pattern": {"Regex": "..."} or {"String": "..."} of a JSON object.
Pattern parse_pattern(const nlohmann::ordered_json& object, const std::string& where);
/// "type" of a part; Error(bad_file) when there is none.
std::string part_type(const nlohmann::ordered_json& object, const std::string& where);

/// Canonical (or compatibility) decomposition, and composition if asked; linear in the length but for sorting runs
/// of combining marks.
std::string unicode_normal_form(std::string_view text, bool compose, bool compatibility);
/// Error(unsupported) when the result is longer than growth_limit(text.size()).
std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, RegexScratch& scratch);
/// How long a text of so many bytes may become: a file must not make a short text fill the memory.
constexpr std::size_t growth_limit(std::size_t bytes) { return 64 * bytes + (std::size_t{1} << 20); }

}  // namespace kedge
