#include "generate/template/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "generate/template/functions.h"
#include "generate/template/text.h"

namespace kedge::jinja {
namespace {

constexpr int max_depth = 1000;      // calls inside calls: about 1 MB of stack
constexpr int max_macro_depth = 50;  // macros that call themselves

class Deeper {
 public:
  Deeper(int& depth, int limit) : depth_(depth) {
    if (++depth_ > limit) {
      --depth_;
      fail("the template calls itself too deeply");
    }
  }
  ~Deeper() { --depth_; }

 private:
  int& depth_;
};

class EnterScope {
 public:
  EnterScope(std::shared_ptr<Scope>& current, std::shared_ptr<Scope> inner)
      : current_(current), outer_(std::exchange(current, std::move(inner))) {}
  ~EnterScope() { current_ = std::move(outer_); }

 private:
  std::shared_ptr<Scope>& current_;
  std::shared_ptr<Scope> outer_;
};

bool holds(const std::string& op, int order) {
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

}  // namespace

Value* Scope::find(const std::string& name) {
  for (auto& [key, value] : names) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  if (Value* old = find(name)) {
    *old = std::move(value);
  } else {
    names.emplace_back(name, std::move(value));
  }
}

std::string Interpreter::render(const Body& body, std::vector<std::pair<std::string, Value>> variables) {
  for (auto& [name, value] : variables) scope_->set(name, std::move(value));
  std::string out;
  run(body, out);
  return out;
}

Value Interpreter::value(const Body& body, std::vector<std::pair<std::string, Value>> variables) {
  for (auto& [name, value] : variables) scope_->set(name, std::move(value));
  constexpr const char* expected = "the template prints something else than one {{ }}, whose value is asked for";
  std::optional<Value> result;
  std::string text;
  for (const auto& statement : body) {
    if (statement->kind != Stmt::Kind::output) {
      run(*statement, text);
    } else if (result.has_value()) {
      fail(expected);
    } else {
      result = printed(*statement);
    }
  }
  if (!result.has_value() || !strip(text, true, false).empty()) fail(expected);
  return *result;
}

Value Interpreter::printed(const Stmt& output) {
  Value value = evaluate(*output.expr);
  if (strict_ && value.is_undefined()) {
    const bool named = output.expr->kind == Expr::Kind::name || output.expr->kind == Expr::Kind::attribute;
    fail(named ? output.expr->name + " is undefined" : "an undefined value is printed");
  }
  return value;
}

// --- statements ---

void Interpreter::append(std::string& out, const std::string& text) {
  meter_.bytes(text.size());
  meter_.check(out.size() + text.size());
  out += text;
}

Interpreter::Flow Interpreter::run(const Body& body, std::string& out) {
  for (const auto& statement : body) {
    const Flow flow = run(*statement, out);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run(const Stmt& statement, std::string& out) {
  const Deeper deeper(depth_, max_depth);
  meter_.work(32);
  line_ = statement.line;
  switch (statement.kind) {
    case Stmt::Kind::text: append(out, statement.text); break;
    case Stmt::Kind::output: append(out, string_of(printed(statement))); break;
    case Stmt::Kind::branch: return run_branch(statement, out);
    case Stmt::Kind::loop: return run_loop(statement, out);
    case Stmt::Kind::assign: run_assign(statement); break;
    case Stmt::Kind::assign_block: {
      Value value = block_text(statement);
      if (statement.to_namespace) {
        assign_member(statement, std::move(value));
      } else {
        scope_->set(statement.targets[0], std::move(value));
      }
      break;
    }
    case Stmt::Kind::macro: define_macro(statement); break;
    case Stmt::Kind::scope: return run_scope(statement, out);
    case Stmt::Kind::filter_block: append(out, string_of(block_text(statement))); break;
    case Stmt::Kind::loop_break: return Flow::loop_break;
    case Stmt::Kind::loop_continue: return Flow::loop_continue;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_branch(const Stmt& statement, std::string& out) {
  for (const auto& [condition, body] : statement.branches) {
    if (condition == nullptr || evaluate(*condition).truth()) return run(body, out);
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_loop(const Stmt& statement, std::string& out) {
  std::vector<Value> items = iterate(evaluate(*statement.expr));
  if (statement.filter != nullptr) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const EnterScope scope(scope_, std::make_shared<Scope>(scope_));
      assign(statement.targets, item);
      if (evaluate(*statement.filter).truth()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    const EnterScope scope(scope_, std::make_shared<Scope>(scope_));
    return run(statement.otherwise, out);
  }
  const auto shared = std::make_shared<const List>(List{std::move(items)});
  for (std::size_t i = 0; i < shared->items.size(); ++i) {
    meter_.work(64);
    const EnterScope scope(scope_, std::make_shared<Scope>(scope_));
    assign(statement.targets, shared->items[i]);
    scope_->set("loop", Value(std::make_shared<const Loop>(Loop{shared, static_cast<std::int64_t>(i)})));
    if (run(statement.body, out) == Flow::loop_break) break;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_scope(const Stmt& statement, std::string& out) {
  auto inner = std::make_shared<Scope>(scope_);
  for (std::size_t i = 0; i < statement.targets.size(); ++i) {
    inner->set(statement.targets[i], evaluate(*statement.values[i]));
  }
  const EnterScope scope(scope_, std::move(inner));
  return run(statement.body, out);
}

void Interpreter::run_assign(const Stmt& statement) {
  Value value = evaluate(*statement.expr);
  if (statement.to_namespace) {
    assign_member(statement, std::move(value));
  } else {
    assign(statement.targets, value);
  }
}

void Interpreter::define_macro(const Stmt& statement) {
  Callable callable;
  callable.name = statement.definition.name;
  callable.macro = &statement.definition;
  callable.scope = scope_;
  scope_->set(statement.definition.name, Value(std::make_shared<const Callable>(std::move(callable))));
}

// The body's text, through the filters.
Value Interpreter::block_text(const Stmt& statement) {
  const EnterScope scope(scope_, std::make_shared<Scope>(scope_));
  std::string text;
  run(statement.body, text);
  const EnterScope filters(scope_, std::make_shared<Scope>(scope_));
  scope_->set(filter_argument, this->text(std::move(text)));
  return evaluate(*statement.expr);
}

void Interpreter::assign(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) {
    scope_->set(targets[0], value);
    return;
  }
  const std::vector<Value> items = iterate(value);
  if (items.size() != targets.size()) {
    fail(fmt::format("{} values for {} names", items.size(), targets.size()));
  }
  for (std::size_t i = 0; i < items.size(); ++i) scope_->set(targets[i], items[i]);
}

void Interpreter::assign_member(const Stmt& statement, Value value) {
  const Value object = lookup(statement.targets[0]);
  if (object.space() == nullptr) fail("a member is set in " + statement.targets[0] + ", which is no namespace");
  set_member(*object.space(), statement.targets[1], std::move(value));
}

// --- expressions ---

Value Interpreter::lookup(const std::string& name) {
  for (Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    meter_.work(scope->names.size() + 1);
    if (const Value* value = scope->find(name)) return *value;
  }
  return name == "strftime_now" && !now_.has_value() ? Value() : global_function(name);
}

Value Interpreter::filter_within(const std::string& name, const Value& subject, const Arguments& arguments) {
  const Deeper deeper(depth_, max_depth);
  return filter(name, subject, arguments);
}

Value Interpreter::evaluate(const Expr& expr) {
  const Deeper deeper(depth_, max_depth);
  meter_.work(16);
  line_ = expr.line;
  const auto operand = [&](std::size_t i) { return evaluate(*expr.args[i]); };
  switch (expr.kind) {
    case Expr::Kind::constant: return expr.value;
    case Expr::Kind::name: return lookup(expr.name);
    case Expr::Kind::list:
    case Expr::Kind::tuple:
    case Expr::Kind::dict: return evaluate_container(expr);
    case Expr::Kind::attribute: return attribute(operand(0), expr.name);
    case Expr::Kind::subscript: {
      const Value object = operand(0);
      return subscript(object, operand(1));
    }
    case Expr::Kind::slice: return evaluate_slice(expr);
    case Expr::Kind::call: return evaluate_call(expr);
    case Expr::Kind::filter: {
      const Value subject = operand(0);
      return filter(expr.name, subject, evaluate_arguments(expr));
    }
    case Expr::Kind::test: {
      const Value subject = operand(0);
      return Value(test(expr.name, subject, evaluate_arguments(expr)));
    }
    case Expr::Kind::negate: return binary("-", Value(std::int64_t{0}), operand(0));
    case Expr::Kind::plus: return binary("+", Value(std::int64_t{0}), operand(0));
    case Expr::Kind::logical_not: return Value(!operand(0).truth());
    case Expr::Kind::logical_and: {
      Value left = operand(0);
      return left.truth() ? operand(1) : left;
    }
    case Expr::Kind::logical_or: {
      Value left = operand(0);
      return left.truth() ? left : operand(1);
    }
    case Expr::Kind::binary: {
      const Value left = operand(0);
      return binary(expr.name, left, operand(1));
    }
    case Expr::Kind::concat: return evaluate_concat(expr);
    case Expr::Kind::compare: return evaluate_compare(expr);
    case Expr::Kind::condition:
      if (operand(1).truth()) return operand(0);
      return expr.args[2] == nullptr ? Value() : operand(2);
  }
  return {};
}

Value Interpreter::evaluate_container(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& arg : expr.args) items.push_back(evaluate(*arg));
  if (expr.kind != Expr::Kind::dict) return list(std::move(items), expr.kind == Expr::Kind::tuple);
  std::vector<std::pair<Value, Value>> pairs;
  for (std::size_t i = 0; i + 1 < items.size(); i += 2) pairs.emplace_back(items[i], items[i + 1]);
  return make_dict(meter_, std::move(pairs));
}

Value Interpreter::evaluate_concat(const Expr& expr) {
  std::string out;
  for (const ExprPtr& arg : expr.args) {
    out += string_of(evaluate(*arg));
    meter_.check(out.size());
  }
  return text(std::move(out));
}

Value Interpreter::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.args[0]);
  for (std::size_t i = 0; i < expr.names.size(); ++i) {
    const std::string& op = expr.names[i];
    Value right = evaluate(*expr.args[i + 1]);
    bool result = false;
    if (op == "in" || op == "not in") {
      result = contains(right, left) == (op == "in");
    } else {
      meter_.work(std::min(left.weight(), right.weight()));
      if (op == "==" || op == "!=") {
        result = equal(meter_, left, right) == (op == "==");
      } else {
        result = holds(op, compare(meter_, left, right));
      }
    }
    if (!result) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_slice(const Expr& expr) {
  const Value object = evaluate(*expr.args[0]);
  std::optional<std::int64_t> bounds[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (expr.args[i + 1] == nullptr) continue;
    const Value bound = evaluate(*expr.args[i + 1]);
    std::int64_t number = 0;
    if (bound.is_none()) continue;
    if (!bound.as_integer(number)) fail(fmt::format("a slice's bound is of type {}", bound.type_name()));
    bounds[i] = number;
  }
  return slice(*this, object, bounds[0], bounds[1], bounds[2]);
}

Arguments Interpreter::evaluate_arguments(const Expr& expr) {
  Arguments arguments;
  for (std::size_t i = 1; i < expr.args.size(); ++i) arguments.positional.push_back(evaluate(*expr.args[i]));
  for (const auto& [name, value] : expr.kwargs) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

Value Interpreter::evaluate_call(const Expr& expr) {
  const Value callee = evaluate(*expr.args[0]);
  const Arguments arguments = evaluate_arguments(expr);
  line_ = expr.line;
  if (callee.callable() == nullptr) {
    const std::string& name = expr.args[0]->name;
    fail(callee.is_undefined() ? fmt::format("{} is undefined and was called", name.empty() ? "a value" : name)
                               : fmt::format("a {} was called", callee.type_name()));
  }
  return call(*callee.callable(), arguments);
}

Value Interpreter::call(const Callable& callable, const Arguments& arguments) {
  if (callable.macro != nullptr) return call_macro(callable, arguments);
  if (callable.receiver.is_undefined()) return call_function(*this, callable.name, arguments);
  return call_method(*this, callable.receiver, callable.name, arguments);
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Deeper deeper(macro_depth_, max_macro_depth);
  const Macro& macro = *callable.macro;
  const std::shared_ptr<Scope> home = callable.scope.lock();
  if (home == nullptr) fail_unsupported("a macro that is called outside of the block that defines it");
  auto inner = std::make_shared<Scope>(home);
  if (arguments.positional.size() > macro.parameters.size()) {
    fail(fmt::format("{} arguments for the macro {}, which has {}", arguments.positional.size(), macro.name,
                     macro.parameters.size()));
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    inner->set(macro.parameters[i], arguments.positional[i]);
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(macro.parameters.begin(), macro.parameters.end(), name);
    if (found == macro.parameters.end() || inner->find(name) != nullptr) {
      fail(fmt::format("the macro {} has no free parameter {}", macro.name, name));
    }
    inner->set(name, value);
  }
  const EnterScope scope(scope_, inner);
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    if (inner->find(macro.parameters[i]) != nullptr) continue;
    const std::size_t without = macro.parameters.size() - macro.defaults.size();
    inner->set(macro.parameters[i], i < without ? Value() : evaluate(*macro.defaults[i - without]));
  }
  std::string out;
  run(*macro.body, out);
  return text(std::move(out));
}

std::string Interpreter::string_of(const Value& value) {
  meter_.work(value.weight());
  return to_text(value);
}

}  // namespace kedge::jinja
