// Regular expressions of tokenizer files, run by PCRE2 (JIT, UTF, UCP).
//
// The files are written for Oniguruma. What it and PCRE2 read differently is translated (\s, \w, \h, {,n}, ^ and $
// at line ends) or refused (nested classes, && in a class, possessive intervals, (?m)), so that a pattern that
// compiles has Oniguruma's matches, up to the two libraries' Unicode versions.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

/// Bytes [begin, end) of a text.
struct Span {
  std::size_t begin = 0, end = 0;
};

/// Match data and JIT stack of one thread's matching; made once per call of the tokenizer.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Regex {
 public:
  /// Error(unsupported) quotes the pattern and names `where`.
  Regex(std::string_view pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Calls fn(Span) for each match, left to right, not overlapping. Empty matches count, except right behind
  /// another match. `subject` must be valid UTF-8. Error(unsupported) when a match takes more than
  /// 100 steps per byte + 100000 (a pattern that backtracks without bound).
  template <class F>
  void for_each_match(std::string_view subject, RegexScratch& scratch, F&& fn) const {
    std::size_t from = 0;
    std::size_t last_end = static_cast<std::size_t>(-1);
    Span match;
    while (from <= subject.size() && search(subject, from, scratch, match)) {
      if (match.begin == match.end && match.end == last_end) {
        from = after_char(subject, from);
        continue;
      }
      from = last_end = match.end;
      fn(match);
    }
  }

 private:
  bool search(std::string_view subject, std::size_t from, RegexScratch& scratch, Span& match) const;
  static std::size_t after_char(std::string_view subject, std::size_t from) noexcept;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A pattern as tokenizer files give it: {"Regex": ...} or {"String": ...}, the latter matched as it stands.
class Pattern {
 public:
  static Pattern regex(std::string_view pattern, const std::string& where);
  static Pattern literal(std::string text);
  /// All of the text in order: (span, is a match). As tokenizers' find_matches: one empty span for an empty text.
  struct Part {
    Span span;
    bool is_match = false;
  };
  void split(std::string_view text, RegexScratch& scratch, std::vector<Part>& parts) const;

 private:
  std::unique_ptr<Regex> regex_;
  std::string literal_;
};

}  // namespace kedge
