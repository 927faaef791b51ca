// Renders a parsed template. Semantics: jinja2's, in an immutable sandbox, with trim_blocks and lstrip_blocks
// (lexer.h).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "generate/template/ast.h"
#include "generate/template/value.h"

namespace kedge::jinja {

struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent) : parent(std::move(parent)) {}
  const std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> names;
  Value* find(const std::string& name);  ///< here only
  void set(const std::string& name, Value value);
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Interpreter {
 public:
  /// now: seconds since 1970, for strftime_now, which is undefined without.
  explicit Interpreter(Meter& meter, std::optional<std::int64_t> now = std::nullopt)
      : meter_(meter), now_(now), scope_(std::make_shared<Scope>(nullptr)) {}

  /// The text of the body; later variables replace earlier ones of the same name. Failure: line() is where.
  std::string render(const Body& body, std::vector<std::pair<std::string, Value>> variables);
  /// The value of the one {{ }} that the body prints, as it is, not as text; fail() for a body that prints anything else
  /// (jinja2's NativeEnvironment, without its guessing).
  Value value(const Body& body, std::vector<std::pair<std::string, Value>> variables);
  /// An undefined value that is printed is a failure (jinja2's StrictUndefined, as far as printing goes).
  void set_strict() noexcept { strict_ = true; }
  int line() const noexcept { return line_; }

  // For filters, tests and functions:
  Meter& meter() noexcept { return meter_; }
  std::optional<std::int64_t> now() const noexcept { return now_; }
  Value text(std::string text) { return make_text(meter_, std::move(text)); }
  Value list(std::vector<Value> items, bool tuple = false) { return make_list(meter_, std::move(items), tuple); }
  std::string string_of(const Value& value);  ///< str()
  /// What a loop over the value gives; fail() when it cannot be iterated.
  std::vector<Value> iterate(const Value& value);
  Value filter(const std::string& name, const Value& subject, const Arguments& arguments);
  /// The same from within a filter, whose nesting is bounded.
  Value filter_within(const std::string& name, const Value& subject, const Arguments& arguments);
  bool test(const std::string& name, const Value& subject, const Arguments& arguments);
  Value attribute(const Value& object, const std::string& name);  ///< object.name
  Value subscript(const Value& object, const Value& key);         ///< object[key]
  bool contains(const Value& container, const Value& item);
  Value binary(const std::string& op, const Value& left, const Value& right);

 private:
  enum class Flow { normal, loop_break, loop_continue };

  Flow run(const Body& body, std::string& out);
  Value printed(const Stmt& output);
  Flow run(const Stmt& statement, std::string& out);
  Flow run_branch(const Stmt& statement, std::string& out);
  Flow run_loop(const Stmt& statement, std::string& out);
  Flow run_scope(const Stmt& statement, std::string& out);
  void run_assign(const Stmt& statement);
  void define_macro(const Stmt& statement);
  Value block_text(const Stmt& statement);
  void assign(const std::vector<std::string>& targets, const Value& value);
  void assign_member(const Stmt& statement, Value value);
  void append(std::string& out, const std::string& text);

  Value evaluate(const Expr& expr);
  Value evaluate_compare(const Expr& expr);
  Value evaluate_concat(const Expr& expr);
  Value evaluate_slice(const Expr& expr);
  Value evaluate_container(const Expr& expr);
  Value evaluate_call(const Expr& expr);
  Arguments evaluate_arguments(const Expr& expr);
  Value lookup(const std::string& name);
  Value call(const Callable& callable, const Arguments& arguments);
  Value call_macro(const Callable& callable, const Arguments& arguments);

  Meter& meter_;
  const std::optional<std::int64_t> now_;
  std::shared_ptr<Scope> scope_;
  bool strict_ = false;
  int line_ = 0;
  int depth_ = 0, macro_depth_ = 0;
};

}  // namespace kedge::jinja
