#include "generate/template/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "generate/template/cursor.h"

namespace kedge::jinja {
namespace {

class Parser {
 public:
  Parser(std::string_view source, int& line, const Whitespace& whitespace) : cursor_(source, line, whitespace) {}

  Body run() {
    Body body = statements({});
    if (cursor_.peek().kind != Token::Kind::end) fail(fmt::format("an unexpected tag {}", cursor_.peek(1).text));
    return body;
  }

 private:
  // Up to a tag that begins with one of `ends` (which is left unread), or the end.
  Body statements(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(cursor_);
    Body body;
    for (;;) {
      const Token& token = cursor_.peek();
      if (token.kind == Token::Kind::end) {
        if (ends.size() != 0) fail(fmt::format("the end, where {} is missing", *(ends.end() - 1)));
        return body;
      }
      if (token.kind == Token::Kind::text) {
        body.push_back(make_statement(Stmt::Kind::text));
        body.back()->text = cursor_.next().text;
      } else if (token.kind == Token::Kind::variable_begin) {
        cursor_.next();
        auto statement = make_statement(Stmt::Kind::output);
        statement->expr = parse_tuple(cursor_);
        if (cursor_.peek().kind != Token::Kind::variable_end) cursor_.unexpected("}}");
        cursor_.next();
        body.push_back(std::move(statement));
      } else if (token.kind == Token::Kind::block_begin) {
        if (ends.size() == 0 && cursor_.peek(1).text.starts_with("end")) return body;
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view e) { return cursor_.is_word(e, 1); }))
          return body;
        cursor_.next();
        body.push_back(statement());
      } else {
        cursor_.unexpected("text or a tag");
      }
    }
  }

  std::unique_ptr<Stmt> make_statement(Stmt::Kind kind) {
    auto statement = std::make_unique<Stmt>();
    statement->kind = kind, statement->line = cursor_.peek().line;
    return statement;
  }

  // Behind "{%".
  std::unique_ptr<Stmt> statement() {
    const std::string word = cursor_.expect_name();
    if (word == "if") return branch();
    if (word == "for") return loop();
    if (word == "set") return assign();
    if (word == "macro") return macro();
    if (word == "with") return with();
    if (word == "filter") return filter_block();
    if (word == "generation") {
      auto out = make_statement(Stmt::Kind::scope);
      cursor_.block_end();
      out->body = closed_body("endgeneration");
      return out;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) fail(word + " outside of a loop");
      auto out = make_statement(word == "break" ? Stmt::Kind::loop_break : Stmt::Kind::loop_continue);
      cursor_.block_end();
      return out;
    }
    for (const char* known : {"include", "import", "from", "extends", "block", "call", "do", "autoescape", "trans"}) {
      if (word == known) fail_unsupported("the statement " + word);
    }
    fail(fmt::format("an unknown statement \"{}\"", word.substr(0, 40)));
  }

  // Behind the opening tag: the body, and the closing tag.
  Body closed_body(std::string_view end) {
    Body body = statements({end});
    cursor_.next();
    cursor_.next();
    cursor_.block_end();
    return body;
  }

  std::unique_ptr<Stmt> branch() {
    auto out = make_statement(Stmt::Kind::branch);
    ExprPtr condition = parse_tuple(cursor_);
    for (;;) {
      cursor_.block_end();
      Body body = statements({"elif", "else", "endif"});
      out->branches.emplace_back(std::move(condition), std::move(body));
      cursor_.next();
      const std::string word = cursor_.next().text;
      if (word == "elif") {
        condition = parse_tuple(cursor_);
        continue;
      }
      if (word == "else") {
        cursor_.block_end();
        out->branches.emplace_back(nullptr, closed_body("endif"));
      } else {
        cursor_.block_end();
      }
      return out;
    }
  }

  std::vector<std::string> target_names() {
    std::vector<std::string> names;
    const bool parenthesis = cursor_.skip_op("(");
    do {
      if (!names.empty() && (cursor_.is_word("in") || cursor_.is_op("=") || cursor_.is_op(")"))) break;
      names.push_back(cursor_.expect_name());
      if (cursor_.is_op("(")) fail_unsupported("nested targets");
    } while (cursor_.skip_op(","));
    if (parenthesis) cursor_.expect_op(")");
    for (const std::string& name : names) {
      for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
        if (name == word) fail("a value is assigned to " + name);
      }
    }
    return names;
  }

  std::unique_ptr<Stmt> loop() {
    auto out = make_statement(Stmt::Kind::loop);
    out->targets = target_names();
    cursor_.expect_word("in");
    // "if" begins the filter, not a conditional expression.
    std::vector<ExprPtr> parts;
    parts.push_back(parse_without_condition(cursor_));
    while (cursor_.skip_op(",")) parts.push_back(parse_without_condition(cursor_));
    out->expr = parts.size() == 1 ? std::move(parts[0]) : make_tuple_of(cursor_, std::move(parts));
    if (cursor_.skip_word("if")) out->filter = parse_expression(cursor_);
    if (cursor_.is_word("recursive")) fail_unsupported("recursive loops");
    cursor_.block_end();
    ++loops_;
    out->body = statements({"else", "endfor"});
    --loops_;
    cursor_.next();
    if (cursor_.next().text == "else") {
      cursor_.block_end();
      out->otherwise = closed_body("endfor");
    } else {
      cursor_.block_end();
    }
    return out;
  }

  std::unique_ptr<Stmt> assign() {
    auto out = make_statement(Stmt::Kind::assign);
    if (cursor_.peek().kind == Token::Kind::name && cursor_.is_op(".", 1)) {
      out->to_namespace = true;
      out->targets.push_back(cursor_.expect_name());
      cursor_.next();
      out->targets.push_back(cursor_.expect_name());
    } else {
      out->targets = target_names();
    }
    if (cursor_.skip_op("=")) {
      out->expr = parse_tuple(cursor_);
      cursor_.block_end();
      return out;
    }
    if (out->targets.size() != (out->to_namespace ? 2u : 1u)) cursor_.unexpected("=");
    out->kind = Stmt::Kind::assign_block;
    ExprPtr value = make_name(cursor_, filter_argument);
    while (cursor_.skip_op("|")) value = parse_filter(cursor_, std::move(value));
    out->expr = std::move(value);
    cursor_.block_end();
    out->body = closed_body("endset");
    return out;
  }

  std::unique_ptr<Stmt> macro() {
    auto out = make_statement(Stmt::Kind::macro);
    Macro& macro = out->definition;
    macro.name = cursor_.expect_name();
    cursor_.expect_op("(");
    while (!cursor_.skip_op(")")) {
      if (!macro.parameters.empty()) cursor_.expect_op(",");
      macro.parameters.push_back(cursor_.expect_name());
      if (cursor_.skip_op("=")) {
        macro.defaults.push_back(parse_expression(cursor_));
      } else if (!macro.defaults.empty()) {
        fail("a parameter without a default behind one with a default");
      }
    }
    cursor_.block_end();
    const int outer = std::exchange(loops_, 0);
    out->body = closed_body("endmacro");
    loops_ = outer;
    macro.body = &out->body;
    return out;
  }

  std::unique_ptr<Stmt> with() {
    auto out = make_statement(Stmt::Kind::scope);
    while (cursor_.peek().kind != Token::Kind::block_end) {
      if (!out->targets.empty()) cursor_.expect_op(",");
      out->targets.push_back(cursor_.expect_name());
      cursor_.expect_op("=");
      out->values.push_back(parse_expression(cursor_));
    }
    cursor_.block_end();
    out->body = closed_body("endwith");
    return out;
  }

  std::unique_ptr<Stmt> filter_block() {
    auto out = make_statement(Stmt::Kind::filter_block);
    ExprPtr value = parse_filter(cursor_, make_name(cursor_, filter_argument));
    while (cursor_.skip_op("|")) value = parse_filter(cursor_, std::move(value));
    out->expr = std::move(value);
    cursor_.block_end();
    out->body = closed_body("endfilter");
    return out;
  }

  Cursor cursor_;
  int loops_ = 0;
};

}  // namespace

Body parse(std::string_view source, int& line, const Whitespace& whitespace) {
  return Parser(source, line, whitespace).run();
}

}  // namespace kedge::jinja
