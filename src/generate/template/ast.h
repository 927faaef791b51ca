// The tree of a parsed template. Depth is bounded by the parser, so that walks and destructors may recurse.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "generate/template/value.h"

namespace kedge::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    constant,     // value
    name,         // name
    list,         // args
    tuple,        // args
    dict,         // args: key, value, key, value, ...
    attribute,    // args[0].name
    subscript,    // args[0][args[1]]
    slice,        // args[0][args[1]:args[2]:args[3]], null where absent
    call,         // args[0](args[1..], kwargs)
    filter,       // args[0] | name(args[1..], kwargs)
    test,         // args[0] is name(args[1..], kwargs)
    negate,       // -args[0]
    plus,         // +args[0]
    logical_not,  // not args[0]
    logical_and,  // args[0] and args[1]
    logical_or,   // args[0] or args[1]
    binary,       // args[0] name args[1]: + - * / // % **
    concat,       // args[0] ~ args[1] ~ ...
    compare,      // args[0] names[0] args[1] names[1] ...: all must hold
    condition,    // args[0] if args[1] else args[2] (may be null)
  };
  Kind kind;
  int line = 0;
  int depth = 1;
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> kwargs;
  std::vector<std::string> names;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  ///< of the last parameters
  const Body* body = nullptr;
};

struct Stmt {
  enum class Kind {
    text,          // text
    output,        // expr
    branch,        // branches: condition (null: else) and body
    loop,          // for targets in expr if filter: body, else otherwise
    assign,        // set targets = expr; or namespace.name when there is one
    assign_block,  // set target | filters: body
    macro,
    scope,         // body in a scope of its own, after targets = args (with, generation)
    filter_block,  // expr applied to the body's text, named filter_argument in it
    loop_break,
    loop_continue,
  };
  Kind kind;
  int line = 0;
  std::string text;
  ExprPtr expr, filter;
  std::vector<std::string> targets;  ///< names; of assign also "space", "name" when to_namespace
  bool to_namespace = false;
  std::vector<ExprPtr> values;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body body, otherwise;
  Macro definition;
};

/// Stands in filter blocks for the block's text; no template can spell it.
inline constexpr const char* filter_argument = "(block)";

}  // namespace kedge::jinja
