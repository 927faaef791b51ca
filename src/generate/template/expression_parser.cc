#include <charconv>
#include <cstdlib>
#include <utility>

#include "generate/template/cursor.h"

namespace kedge::jinja {
namespace {

constexpr int max_expression_depth = 200;  // of the tree: a + b + c has depth 3

class ExpressionParser {
 public:
  explicit ExpressionParser(Cursor& cursor) : cursor_(cursor) {}

  ExprPtr make(Expr::Kind kind, std::vector<ExprPtr> args = {}, std::string name = {}) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind, expr->line = cursor_.line(), expr->args = std::move(args), expr->name = std::move(name);
    for (const ExprPtr& arg : expr->args) deepen(*expr, arg);
    return expr;
  }
  static void deepen(Expr& expr, const ExprPtr& part) {
    if (part != nullptr) expr.depth = std::max(expr.depth, part->depth + 1);
    if (expr.depth > max_expression_depth) fail("an expression nests too deeply");
  }
  template <class... Parts>
  ExprPtr make_of(Expr::Kind kind, std::string name, Parts... parts) {
    std::vector<ExprPtr> args;
    (args.push_back(std::move(parts)), ...);
    return make(kind, std::move(args), std::move(name));
  }
  ExprPtr constant(Value value) {
    ExprPtr expr = make(Expr::Kind::constant);
    expr->value = std::move(value);
    return expr;
  }

  ExprPtr expression() {
    const Nesting nesting(cursor_);
    ExprPtr left = logical_or();
    while (cursor_.skip_word("if")) {
      ExprPtr condition = logical_or(), otherwise;
      if (cursor_.skip_word("else")) otherwise = expression();
      left = make_of(Expr::Kind::condition, "", std::move(left), std::move(condition), std::move(otherwise));
    }
    return left;
  }

  // An expression, or several between commas.
  ExprPtr tuple() {
    ExprPtr first = expression();
    if (!cursor_.is_op(",")) return first;
    std::vector<ExprPtr> items;
    items.push_back(std::move(first));
    while (cursor_.skip_op(",")) {
      if (ends_tuple()) break;
      items.push_back(expression());
    }
    return make(Expr::Kind::tuple, std::move(items));
  }
  bool ends_tuple() const {
    return cursor_.peek().kind == Token::Kind::block_end || cursor_.peek().kind == Token::Kind::variable_end ||
           cursor_.is_op(")") || cursor_.is_op("=");
  }

  ExprPtr logical_or() {
    ExprPtr left = logical_and();
    while (cursor_.skip_word("or")) left = make_of(Expr::Kind::logical_or, "", std::move(left), logical_and());
    return left;
  }
  ExprPtr logical_and() {
    ExprPtr left = logical_not();
    while (cursor_.skip_word("and")) left = make_of(Expr::Kind::logical_and, "", std::move(left), logical_not());
    return left;
  }
  ExprPtr logical_not() {
    if (!cursor_.skip_word("not")) return comparison();
    const Nesting nesting(cursor_);
    return make_of(Expr::Kind::logical_not, "", logical_not());
  }

  ExprPtr comparison() {
    std::vector<ExprPtr> operands;
    std::vector<std::string> names;
    operands.push_back(sum());
    for (;;) {
      static constexpr std::string_view ops[] = {"==", "!=", "<=", ">=", "<", ">"};
      const auto op =
          std::find_if(std::begin(ops), std::end(ops), [&](std::string_view o) { return cursor_.is_op(o); });
      if (op != std::end(ops)) {
        cursor_.next();
        names.emplace_back(*op);
      } else if (cursor_.skip_word("in")) {
        names.emplace_back("in");
      } else if (cursor_.is_word("not") && cursor_.is_word("in", 1)) {
        cursor_.next(), cursor_.next();
        names.emplace_back("not in");
      } else {
        break;
      }
      operands.push_back(sum());
    }
    if (names.empty()) return std::move(operands[0]);
    ExprPtr expr = make(Expr::Kind::compare, std::move(operands));
    expr->names = std::move(names);
    return expr;
  }

  ExprPtr sum() {
    ExprPtr left = concatenation();
    while (cursor_.is_op("+") || cursor_.is_op("-")) {
      std::string op = cursor_.next().text;
      left = make_of(Expr::Kind::binary, std::move(op), std::move(left), concatenation());
    }
    return left;
  }
  ExprPtr concatenation() {
    std::vector<ExprPtr> parts;
    parts.push_back(product());
    while (cursor_.skip_op("~")) parts.push_back(product());
    return parts.size() == 1 ? std::move(parts[0]) : make(Expr::Kind::concat, std::move(parts));
  }
  ExprPtr product() {
    ExprPtr left = power();
    while (cursor_.is_op("*") || cursor_.is_op("/") || cursor_.is_op("//") || cursor_.is_op("%")) {
      std::string op = cursor_.next().text;
      left = make_of(Expr::Kind::binary, std::move(op), std::move(left), power());
    }
    return left;
  }
  ExprPtr power() {
    ExprPtr left = unary(true);
    while (cursor_.skip_op("**")) left = make_of(Expr::Kind::binary, "**", std::move(left), unary(true));
    return left;
  }
  ExprPtr unary(bool with_filter) {
    const Nesting nesting(cursor_);
    ExprPtr expr;
    if (cursor_.skip_op("-")) {
      expr = make_of(Expr::Kind::negate, "", unary(false));
    } else if (cursor_.skip_op("+")) {
      expr = make_of(Expr::Kind::plus, "", unary(false));
    } else {
      expr = postfix(primary());
    }
    return with_filter ? filters(std::move(expr)) : std::move(expr);
  }

  ExprPtr primary() {
    const Token token = cursor_.peek();
    switch (token.kind) {
      case Token::Kind::name: {
        cursor_.next();
        if (token.text == "true" || token.text == "True") return constant(Value(true));
        if (token.text == "false" || token.text == "False") return constant(Value(false));
        if (token.text == "none" || token.text == "None") return constant(Value(None{}));
        return make(Expr::Kind::name, {}, token.text);
      }
      case Token::Kind::string: {
        std::string text = cursor_.next().text;
        while (cursor_.peek().kind == Token::Kind::string) text += cursor_.next().text;
        return constant(Value::text(std::move(text)));
      }
      case Token::Kind::integer: {
        cursor_.next();
        std::int64_t number = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, number).ec != std::errc()) fail("a number beyond 64 bits");
        return constant(Value(number));
      }
      case Token::Kind::real: {
        cursor_.next();
        return constant(Value(std::strtod(token.text.c_str(), nullptr)));
      }
      default: break;
    }
    if (cursor_.skip_op("(")) return parentheses();
    if (cursor_.skip_op("[")) {
      return make(Expr::Kind::list, items("]"));
    }
    if (cursor_.skip_op("{")) return mapping();
    cursor_.unexpected("an expression");
  }

  ExprPtr parentheses() {
    if (cursor_.skip_op(")")) return make(Expr::Kind::tuple);
    ExprPtr inner = tuple();
    cursor_.expect_op(")");
    return inner;
  }

  std::vector<ExprPtr> items(std::string_view close) {
    std::vector<ExprPtr> out;
    while (!cursor_.skip_op(close)) {
      if (!out.empty()) {
        cursor_.expect_op(",");
        if (cursor_.skip_op(close)) break;
      }
      out.push_back(expression());
    }
    return out;
  }

  ExprPtr mapping() {
    std::vector<ExprPtr> parts;
    while (!cursor_.skip_op("}")) {
      if (!parts.empty()) {
        cursor_.expect_op(",");
        if (cursor_.skip_op("}")) break;
      }
      parts.push_back(expression());
      cursor_.expect_op(":");
      parts.push_back(expression());
    }
    return make(Expr::Kind::dict, std::move(parts));
  }

  ExprPtr postfix(ExprPtr expr) {
    for (;;) {
      if (cursor_.skip_op(".")) {
        if (cursor_.peek().kind == Token::Kind::integer) {
          ExprPtr index = primary();
          expr = make_of(Expr::Kind::subscript, "", std::move(expr), std::move(index));
        } else {
          std::string name = cursor_.expect_name();
          expr = make_of(Expr::Kind::attribute, std::move(name), std::move(expr));
        }
      } else if (cursor_.skip_op("[")) {
        expr = subscript(std::move(expr));
      } else if (cursor_.skip_op("(")) {
        expr = call(make_of(Expr::Kind::call, "", std::move(expr)));
      } else {
        return expr;
      }
    }
  }

  ExprPtr subscript(ExprPtr expr) {
    ExprPtr parts[3];
    int n = 0;
    bool is_slice = false;
    while (!cursor_.is_op("]")) {
      if (cursor_.is_op(":") && n < 2) {
        cursor_.next();
        is_slice = true;
        ++n;
      } else if (parts[n] == nullptr) {
        parts[n] = expression();
      } else {
        cursor_.unexpected("]");
      }
    }
    cursor_.next();
    if (is_slice) {
      return make_of(Expr::Kind::slice, "", std::move(expr), std::move(parts[0]), std::move(parts[1]),
                     std::move(parts[2]));
    }
    if (parts[0] == nullptr) fail("a subscript is empty");
    return make_of(Expr::Kind::subscript, "", std::move(expr), std::move(parts[0]));
  }

  // Behind "(": arguments into expr.
  ExprPtr call(ExprPtr expr) {
    bool first = true;
    while (!cursor_.skip_op(")")) {
      if (!first) {
        cursor_.expect_op(",");
        if (cursor_.skip_op(")")) break;
      }
      first = false;
      if (cursor_.is_op("*") || cursor_.is_op("**")) fail_unsupported("* and ** arguments");
      if (cursor_.peek().kind == Token::Kind::name && cursor_.is_op("=", 1)) {
        std::string name = cursor_.next().text;
        cursor_.next();
        expr->kwargs.emplace_back(std::move(name), expression());
        deepen(*expr, expr->kwargs.back().second);
      } else {
        if (!expr->kwargs.empty()) fail("a positional argument behind a named one");
        expr->args.push_back(expression());
        deepen(*expr, expr->args.back());
      }
    }
    return expr;
  }

  std::string dotted_name() {
    std::string name = cursor_.expect_name();
    while (cursor_.skip_op(".")) name += "." + cursor_.expect_name();
    return name;
  }

  ExprPtr filters(ExprPtr expr) {
    for (;;) {
      if (cursor_.skip_op("|")) {
        expr = filter(std::move(expr));
      } else if (cursor_.skip_word("is")) {
        expr = test(std::move(expr));
      } else if (cursor_.is_op("(") && (expr->kind == Expr::Kind::filter || expr->kind == Expr::Kind::test)) {
        cursor_.next();
        expr = call(make_of(Expr::Kind::call, "", std::move(expr)));
      } else {
        return expr;
      }
    }
  }
  ExprPtr filter(ExprPtr subject) {
    std::string name = dotted_name();
    ExprPtr expr = make_of(Expr::Kind::filter, std::move(name), std::move(subject));
    return cursor_.skip_op("(") ? call(std::move(expr)) : std::move(expr);
  }

  ExprPtr test(ExprPtr subject) {
    const bool negated = cursor_.skip_word("not");
    std::string name = dotted_name();
    ExprPtr expr = make_of(Expr::Kind::test, std::move(name), std::move(subject));
    const Token::Kind kind = cursor_.peek().kind;
    if (cursor_.skip_op("(")) {
      expr = call(std::move(expr));
    } else if ((kind == Token::Kind::name && !cursor_.is_word("else") && !cursor_.is_word("or") &&
                !cursor_.is_word("and")) ||
               kind == Token::Kind::string || kind == Token::Kind::integer || kind == Token::Kind::real ||
               cursor_.is_op("[") || cursor_.is_op("{")) {
      if (cursor_.is_word("is")) fail("tests cannot be chained with is");
      if (!cursor_.is_word("if") && !cursor_.is_word("in") && !cursor_.is_word("not") &&
          !cursor_.is_word("recursive")) {
        expr->args.push_back(postfix(primary()));
        deepen(*expr, expr->args.back());
      }
    }
    return negated ? make_of(Expr::Kind::logical_not, "", std::move(expr)) : std::move(expr);
  }

 private:
  Cursor& cursor_;
};

}  // namespace

ExprPtr parse_expression(Cursor& cursor) { return ExpressionParser(cursor).expression(); }
ExprPtr parse_tuple(Cursor& cursor) { return ExpressionParser(cursor).tuple(); }
ExprPtr parse_without_condition(Cursor& cursor) { return ExpressionParser(cursor).logical_or(); }
ExprPtr make_tuple_of(Cursor& cursor, std::vector<ExprPtr> items) {
  return ExpressionParser(cursor).make(Expr::Kind::tuple, std::move(items));
}
ExprPtr parse_filter(Cursor& cursor, ExprPtr subject) { return ExpressionParser(cursor).filter(std::move(subject)); }
ExprPtr make_name(Cursor& cursor, std::string name) {
  return ExpressionParser(cursor).make(Expr::Kind::name, {}, std::move(name));
}

}  // namespace kedge::jinja
