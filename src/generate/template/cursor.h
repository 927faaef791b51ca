// The parser's place in the tokens. Errors are Failures; line() is where.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "generate/template/ast.h"
#include "generate/template/lexer.h"

namespace kedge::jinja {

inline constexpr int max_nesting = 60;  // brackets in brackets, statements in statements

class Cursor {
 public:
  Cursor(std::string_view source, int& line, const Whitespace& whitespace)
      : tokens_(tokenize(source, line, whitespace)), line_(line) {}

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = peek();
    line_ = token.line;
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  bool is_op(std::string_view op, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::op && peek(ahead).text == op;
  }
  bool is_word(std::string_view word, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::name && peek(ahead).text == word;
  }
  bool skip_op(std::string_view op) { return is_op(op) && (next(), true); }
  bool skip_word(std::string_view word) { return is_word(word) && (next(), true); }
  [[noreturn]] void unexpected(std::string_view expected) {
    line_ = peek().line;
    const std::string found = peek().kind == Token::Kind::end ? "the end" : "\"" + peek().text.substr(0, 40) + "\"";
    fail(fmt::format("expected {}, found {}", expected, found));
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) unexpected(op);
  }
  void expect_word(std::string_view word) {
    if (!skip_word(word)) unexpected(word);
  }
  std::string expect_name() {
    if (peek().kind != Token::Kind::name) unexpected("a name");
    return next().text;
  }
  void block_end() {
    if (peek().kind != Token::Kind::block_end) unexpected("%}");
    next();
  }
  int line() const noexcept { return line_; }

 private:
  friend class Nesting;
  const std::vector<Token> tokens_;
  int& line_;
  std::size_t pos_ = 0;
  int depth_ = 0;
};

class Nesting {
 public:
  explicit Nesting(Cursor& cursor) : depth_(cursor.depth_) {
    if (depth_ == max_nesting) fail("the template nests too deeply");
    ++depth_;
  }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;

 private:
  int& depth_;
};

/// An expression; several between commas (a tuple); one without "if" at its end, as "for x in" takes it.
ExprPtr parse_expression(Cursor& cursor);
ExprPtr parse_tuple(Cursor& cursor);
ExprPtr parse_without_condition(Cursor& cursor);
ExprPtr make_tuple_of(Cursor& cursor, std::vector<ExprPtr> items);
/// Behind "|": the filter applied to subject.
ExprPtr parse_filter(Cursor& cursor, ExprPtr subject);
ExprPtr make_name(Cursor& cursor, std::string name);

}  // namespace kedge::jinja
