// Module-name patterns of checkpoint configs ("re:.*mlp\\.gate$"): the part of Python's re that such lists use.
//
// Matched by simulating the automaton, in time pattern x name: a pattern comes out of a file and must not be able to
// hang the reader, which a backtracking engine allows. Read: literals, '.', escapes (\. \d \w \s and other escaped
// punctuation), [...] classes, groups (...) and (?:...), alternatives, ?, *, +, lazy forms of these, {m}, {m,}, {m,n}
// with numbers up to 1000, ^ and $. Not read: look-around, back references, flags.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace kedge {

class NamePattern {
 public:
  /// nullopt: malformed, or a construct that is not read, or an automaton of more than 2,000 states.
  static std::optional<NamePattern> compile(std::string_view pattern);
  /// Like re.match: from the first character, not necessarily to the last.
  bool matches_prefix(std::string_view name) const;

 private:
  friend class NamePatternCompiler;
  enum class Kind : std::uint8_t { chars, split, begin, end, accept };
  struct State {
    Kind kind;
    std::bitset<256> chars;     // chars
    int next = -1, other = -1;  // other: split
  };
  NamePattern() = default;
  std::vector<State> states_;
  int start_ = 0;
};

}  // namespace kedge
