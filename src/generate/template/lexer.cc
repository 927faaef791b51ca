#include "generate/template/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "generate/template/text.h"
#include "generate/template/value.h"
#include "generate/tokenizer/unicode.h"

namespace kedge::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name(char c) { return is_name_start(c) || is_digit(c); }

// "\r\n" and "\r" become "\n"; one newline at the end is not the template's unless it is to be kept.
std::string normalized(std::string_view source, bool keep_trailing_newline) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!keep_trailing_newline && out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, int& line, const Whitespace& whitespace)
      : source_(normalized(source, whitespace.keep_trailing_newline)), whitespace_(whitespace), line_(line) {}

  std::vector<Token> run() {
    line_ = 1;
    while (pos_ < source_.size()) root();
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(pos_); }
  void add(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void advance(std::size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(pos_ + n), '\n'));
    pos_ += n;
  }

  // Text up to the next tag, then the tag.
  void root() {
    std::size_t begin = pos_;
    for (;; ++begin) {
      begin = source_.find('{', begin);
      if (begin == std::string::npos || begin + 1 == source_.size()) {
        text(source_.size() - pos_, 0, false);
        return;
      }
      const char c = source_[begin + 1];
      if (c == '%' || c == '{' || c == '#') break;
    }
    const char kind = source_[begin + 1];
    const std::size_t sign_at = begin + 2;
    const char sign =
        sign_at < source_.size() && (source_[sign_at] == '-' || source_[sign_at] == '+') ? source_[sign_at] : 0;
    text(begin - pos_, sign, kind != '{');
    advance(sign != 0 ? 3 : 2);
    if (kind == '#') {
      comment();
    } else if (kind == '{') {
      add(Token::Kind::variable_begin, "{{");
      expression("}}", Token::Kind::variable_end);
    } else if (!raw()) {
      add(Token::Kind::block_begin, "{%");
      expression("%}", Token::Kind::block_end);
    }
  }

  // sign: of the tag that follows; strip_line: whether lstrip_blocks is for it.
  void text(std::size_t size, char sign, bool strip_line) {
    std::string_view out = rest().substr(0, size);
    if (sign == '-') {
      out = strip(out, false, true);
    } else if (sign != '+' && strip_line && whitespace_.lstrip_blocks) {
      const std::size_t newline = out.rfind('\n');
      const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || line_starting_) && strip(out.substr(start), true, false).empty()) out = out.substr(0, start);
    }
    if (!out.empty()) add(Token::Kind::text, std::string(out));
    advance(size);
  }

  // Behind a tag: "-" takes all whitespace, else a block or comment takes one newline.
  void after_tag(char sign, bool trims) {
    const std::size_t begin = pos_;
    if (sign == '-') {
      advance(rest().size() - strip(rest(), true, false).size());
    } else if (sign != '+' && trims && whitespace_.trim_blocks && rest().starts_with('\n')) {
      advance(1);
    }
    line_starting_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  void comment() {
    const std::size_t end = rest().find("#}");
    if (end == std::string_view::npos) fail("a comment is not closed");
    // "{#-}": the sign before the end belongs to the end.
    const char sign = end > 0 && (rest()[end - 1] == '-' || rest()[end - 1] == '+') ? rest()[end - 1] : 0;
    advance(end + 2);
    after_tag(sign, true);
  }

  // {% raw %} ... {% endraw %}; pos_ is behind "{%" and its sign.
  bool raw() {
    std::size_t at = word(pos_, "raw");
    if (at == std::string::npos) return false;
    if (source_.compare(at, 3, "-%}") == 0) {
      advance(at + 3 - pos_);
      after_tag('-', false);
    } else if (source_.compare(at, 2, "%}") == 0) {
      advance(at + 2 - pos_);
      line_starting_ = false;
    } else {
      return false;
    }
    for (std::size_t begin = source_.find("{%", pos_); begin != std::string::npos;
         begin = source_.find("{%", begin + 1)) {
      std::size_t inside = begin + 2;
      const char sign =
          inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+') ? source_[inside++] : 0;
      std::size_t end = word(inside, "endraw");
      if (end == std::string::npos) continue;
      char end_sign = 0;
      if (end < source_.size() && (source_[end] == '-' || source_[end] == '+')) end_sign = source_[end++];
      if (source_.compare(end, 2, "%}") != 0) continue;
      text(begin - pos_, sign, true);
      advance(end + 2 - pos_);
      after_tag(end_sign, true);
      return true;
    }
    fail("a raw block is not closed");
  }

  // Behind whitespace, the word and whitespace; npos when another word stands there.
  std::size_t word(std::size_t at, std::string_view expected) const {
    const auto skip = [&] {
      while (at < source_.size() && (source_[at] == ' ' || source_[at] == '\n' || source_[at] == '\t')) ++at;
    };
    skip();
    if (std::string_view(source_).substr(at, expected.size()) != expected) return std::string::npos;
    at += expected.size();
    if (at < source_.size() && is_name(source_[at])) return std::string::npos;
    skip();
    return at;
  }

  void expression(std::string_view close, Token::Kind end_kind) {
    std::string open;  // brackets; inside them "}}" closes mappings
    for (;;) {
      advance(rest().size() - strip(rest(), true, false).size());
      if (rest().empty()) fail(fmt::format("a tag is not closed by {}", close));
      if (open.empty() && ends_tag(close, end_kind)) return;
      const char c = rest()[0];
      if (is_name_start(c)) {
        std::size_t n = 1;
        while (n < rest().size() && is_name(rest()[n])) ++n;
        take(Token::Kind::name, n);
      } else if (is_digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        operation(open);
      }
    }
  }

  bool ends_tag(std::string_view close, Token::Kind kind) {
    char sign = 0;
    if (rest().starts_with(close)) {
    } else if (rest().substr(1).starts_with(close) &&
               (rest()[0] == '-' || (rest()[0] == '+' && kind == Token::Kind::block_end))) {
      sign = rest()[0];
    } else {
      return false;
    }
    add(kind, std::string(close));
    advance(close.size() + (sign != 0 ? 1 : 0));
    after_tag(sign, kind == Token::Kind::block_end);
    return true;
  }

  void take(Token::Kind kind, std::size_t n) {
    add(kind, std::string(rest().substr(0, n)));
    advance(n);
  }

  void number() {
    const std::string_view r = rest();
    std::size_t n = 0;
    const auto digits = [&] {
      while (n < r.size() && (is_digit(r[n]) || (r[n] == '_' && n + 1 < r.size() && is_digit(r[n + 1])))) ++n;
    };
    if (r[0] == '0' && r.size() > 1 && std::string_view("xXoObB").find(r[1]) != std::string_view::npos) {
      fail_unsupported("numbers that are not decimal");
    }
    digits();
    bool real = false;
    if (n + 1 < r.size() && r[n] == '.' && is_digit(r[n + 1])) {
      real = true;
      ++n;
      digits();
    }
    std::size_t e = n;
    if (e < r.size() && (r[e] == 'e' || r[e] == 'E')) {
      ++e;
      if (e < r.size() && (r[e] == '+' || r[e] == '-')) ++e;
      if (e < r.size() && is_digit(r[e])) {
        real = true;
        n = e;
        digits();
      }
    }
    std::string text(r.substr(0, n));
    std::erase(text, '_');
    add(real ? Token::Kind::real : Token::Kind::integer, std::move(text));
    advance(n);
  }

  // Python's escapes in string literals.
  void string(char quote) {
    const std::string_view r = rest();
    std::string out;
    std::size_t i = 1;
    for (; i < r.size() && r[i] != quote; ++i) {
      if (r[i] != '\\') {
        out += r[i];
        continue;
      }
      if (++i == r.size()) break;
      static constexpr std::string_view letters = "\\'\"abfnrtv", meant = "\\'\"\a\b\f\n\r\t\v";
      if (const std::size_t k = letters.find(r[i]); k != std::string_view::npos) {
        out += meant[k];
      } else if (r[i] == '\n') {
      } else if (r[i] >= '0' && r[i] <= '7') {
        std::size_t n = 0;
        while (n < 3 && i + n < r.size() && r[i + n] >= '0' && r[i + n] <= '7') ++n;
        append_code(r.substr(i, n), 8, out);
        i += n - 1;
      } else if (r[i] == 'x' || r[i] == 'u' || r[i] == 'U') {
        const std::size_t n = r[i] == 'x' ? 2 : (r[i] == 'u' ? 4 : 8);
        append_code(r.substr(i + 1, n), 16, out, n);
        i += n;
      } else if (r[i] == 'N') {
        fail_unsupported("\\N in a string");
      } else {
        out += '\\', out += r[i];
      }
    }
    if (i >= r.size()) fail("a string is not closed");
    add(Token::Kind::string, std::move(out));
    advance(i + 1);
  }

  static void append_code(std::string_view digits, int base, std::string& out, std::size_t expected = 0) {
    std::uint32_t code = 0;
    bool good = expected == 0 || digits.size() == expected;
    for (const char c : digits) {
      const std::size_t digit =
          std::string_view("0123456789abcdef").find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      good = good && digit < static_cast<std::size_t>(base);
      code = code * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(digit);
    }
    if (!good || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) fail("a string's escape is no code point");
    unicode::append(out, code);
  }

  void operation(std::string& open) {
    static constexpr std::string_view two[] = {"**", "//", "==", "!=", ">=", "<="};
    for (const std::string_view op : two) {
      if (rest().starts_with(op)) return take(Token::Kind::op, 2);
    }
    const char c = rest()[0];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      fail(fmt::format("an unexpected character (byte {:#04x})", static_cast<unsigned char>(c)));
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : (c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) fail(fmt::format("an unexpected {}", c));
      open.pop_back();
    }
    take(Token::Kind::op, 1);
  }

  const std::string source_;
  const Whitespace whitespace_;
  int& line_;
  std::size_t pos_ = 0;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, int& line, const Whitespace& whitespace) {
  return Lexer(source, line, whitespace).run();
}

}  // namespace kedge::jinja
