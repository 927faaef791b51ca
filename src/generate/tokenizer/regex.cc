#define PCRE2_CODE_UNIT_WIDTH 8
#include "generate/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <new>

#include "base/check.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::size_t max_pattern_length = 64 * 1024;
// White_Space of Unicode; PCRE2's own \s has U+180E besides.
constexpr std::string_view space_class =
    R"(\x09-\x0d\x20\x85\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view word_class = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";  // UTS 18
// Outside a class Oniguruma uses a table for Latin-1, which has superscript digits and fractions besides.
constexpr std::string_view latin1_words = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view hex_class = "0-9A-Fa-f";

// Oniguruma's pattern -> PCRE2's.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (pos_ < in_.size()) {
      const char c = in_[pos_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        inside_class(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '{') {
        interval();
      } else if (c == '(') {
        group();
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  void copy(std::size_t n) {
    out_.append(in_.substr(pos_, n));
    pos_ += n;
  }
  bool at(std::string_view text) const { return in_.substr(pos_).starts_with(text); }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::unsupported, where_ + ": the regular expression '" + std::string(in_) + "' uses " + what,
                "an expression that means the same in Oniguruma and PCRE2");
  }

  void escape() {
    if (pos_ + 1 >= in_.size()) return copy(1);
    const char kind = in_[pos_ + 1];
    std::string_view members;
    if (kind == 's' || kind == 'S') members = space_class;
    if (kind == 'w' || kind == 'W') members = word_class;
    if (kind == 'h' || kind == 'H') members = hex_class;
    if (members.empty()) return copy(2);
    const bool negated = kind < 'a';
    if (in_class_ && negated) refuse(std::string("\\") + kind + " inside a class");
    pos_ += 2;
    if (in_class_) {
      out_.append(members);
    } else {
      out_.append(negated ? "[^" : "[").append(members);
      if (members == word_class) out_.append(latin1_words);
      out_.append("]");
    }
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (at("^")) copy(1);
    if (at("]")) copy(1);
  }

  void inside_class(char c) {
    if (at("[:")) {
      const std::size_t end = in_.find(":]", pos_);
      if (end == std::string_view::npos) refuse("an open [: in a class");
      return copy(end + 2 - pos_);
    }
    if (c == '[') refuse("a class inside a class");
    if (at("&&")) refuse("an intersection of classes");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void interval() {
    std::size_t i = pos_ + 1;
    const auto digits = [&] {
      const std::size_t begin = i;
      while (i < in_.size() && in_[i] >= '0' && in_[i] <= '9') ++i;
      return in_.substr(begin, i - begin);
    };
    const std::string_view low = digits();
    bool comma = false;
    std::string_view high;
    if (i < in_.size() && in_[i] == ',') {
      comma = true;
      ++i;
      high = digits();
    }
    const bool is_interval = i < in_.size() && in_[i] == '}' && (!low.empty() || (comma && !high.empty()));
    if (!is_interval) return copy(1);
    if (i + 1 < in_.size() && in_[i + 1] == '+') refuse("an interval followed by +");
    out_.append("{").append(low.empty() ? "0" : low);
    if (comma) out_.append(",").append(high);
    out_.append("}");
    pos_ = i + 1;
  }

  // Oniguruma's (?m) is PCRE2's (?s): refuse flags with m.
  void group() {
    if (at("(?")) {
      std::size_t i = pos_ + 2;
      while (i < in_.size() && (in_[i] == 'i' || in_[i] == 'm' || in_[i] == 'x' || in_[i] == 's' || in_[i] == '-')) {
        if (in_[i] == 'm') refuse("the flag m");
        ++i;
      }
    }
    copy(1);
  }

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  std::size_t pos_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR8, 256> buffer{};
  pcre2_get_error_message_8(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct RegexScratch::Impl {
  pcre2_match_data_8* data = pcre2_match_data_create_8(1, nullptr);
  pcre2_match_context_8* context = pcre2_match_context_create_8(nullptr);
  pcre2_jit_stack_8* stack = pcre2_jit_stack_create_8(32 * 1024, 8 * 1024 * 1024, nullptr);
  Impl() {
    if (data == nullptr || context == nullptr || stack == nullptr) {
      destroy();
      throw std::bad_alloc();
    }
    pcre2_jit_stack_assign_8(context, nullptr, stack);
    pcre2_set_heap_limit_8(context, 64 * 1024);  // KiB; the interpreter's, where JIT is not allowed
    pcre2_set_depth_limit_8(context, 100000);
  }
  ~Impl() { destroy(); }
  void destroy() {
    pcre2_match_data_free_8(data);
    pcre2_match_context_free_8(context);
    pcre2_jit_stack_free_8(stack);
  }
};

RegexScratch::RegexScratch() : impl_(std::make_unique<Impl>()) {}
RegexScratch::~RegexScratch() = default;

struct Regex::Impl {
  pcre2_code_8* code = nullptr;
  std::string pattern, where;
  ~Impl() { pcre2_code_free_8(code); }
};

Regex::Regex(std::string_view pattern, const std::string& where) : impl_(std::make_unique<Impl>()) {
  if (pattern.size() > max_pattern_length) {
    throw Error(ErrorCode::unsupported,
                where + ": a regular expression of " + std::to_string(pattern.size()) + " bytes",
                "at most " + std::to_string(max_pattern_length));
  }
  const std::string translated = Translator(pattern, where).run();
  int code = 0;
  PCRE2_SIZE offset = 0;
  impl_->pattern = pattern;
  impl_->where = where;
  impl_->code =
      pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (impl_->code == nullptr) {
    throw Error(ErrorCode::unsupported, where + ": the regular expression '" + std::string(pattern) +
                                            "' does not compile: " + pcre2_message(code));
  }
  // Without JIT (memory that may not be executed) pcre2_match interprets: slower, same matches.
  pcre2_jit_compile_8(impl_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

bool Regex::search(std::string_view subject, std::size_t from, RegexScratch& scratch, Span& match) const {
  RegexScratch::Impl& s = *scratch.impl_;
  const std::size_t steps = std::min<std::size_t>(subject.size() * 100 + 100000, 0xFFFFFFFFu);
  pcre2_set_match_limit_8(s.context, static_cast<std::uint32_t>(steps));
  const int result = pcre2_match_8(impl_->code, reinterpret_cast<PCRE2_SPTR8>(subject.data()), subject.size(), from,
                                   PCRE2_NO_UTF_CHECK, s.data, s.context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw Error(ErrorCode::unsupported,
                impl_->where + ": the regular expression '" + impl_->pattern + "' failed: " + pcre2_message(result),
                "an expression that matches in bounded time and memory");
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer_8(s.data);
  // \K can move the start behind the end or before `from`.
  if (range[0] > range[1] || range[0] < from) {
    throw Error(ErrorCode::unsupported,
                impl_->where + ": the regular expression '" + impl_->pattern + "' uses \\K in a lookaround");
  }
  match = {range[0], range[1]};
  return true;
}

std::size_t Regex::after_char(std::string_view subject, std::size_t from) noexcept {
  ++from;
  while (from < subject.size() && (static_cast<unsigned char>(subject[from]) & 0xC0) == 0x80) ++from;
  return from;
}

Pattern Pattern::regex(std::string_view pattern, const std::string& where) {
  Pattern p;
  p.regex_ = std::make_unique<Regex>(pattern, where);
  return p;
}

Pattern Pattern::literal(std::string text) {
  Pattern p;
  p.literal_ = std::move(text);
  return p;
}

void Pattern::split(std::string_view text, RegexScratch& scratch, std::vector<Part>& parts) const {
  parts.clear();
  if (text.empty()) {
    parts.push_back({});
    return;
  }
  std::size_t done = 0;
  const auto add = [&](Span match) {
    if (done != match.begin) parts.push_back({{done, match.begin}, false});
    parts.push_back({match, true});
    done = match.end;
  };
  if (regex_ != nullptr) {
    regex_->for_each_match(text, scratch, add);
  } else if (!literal_.empty()) {
    for (std::size_t at = text.find(literal_); at != std::string_view::npos; at = text.find(literal_, done)) {
      add({at, at + literal_.size()});
    }
  }
  if (done != text.size()) parts.push_back({{done, text.size()}, false});
}

}  // namespace kedge
