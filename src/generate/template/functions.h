// What templates call: operators, methods of texts, lists and mappings, and functions of the environment. Filters and
// tests are in filters.cc and predicates.cc.
#pragma once

#include <optional>
#include <string>

#include "generate/template/interpreter.h"

namespace kedge::jinja {

/// Arguments by the parameters' names ("old,new,count"): one value each, undefined where not given. fail() for others.
std::vector<Value> bind(const char* what, const char* parameters, const Arguments& arguments);

/// range, namespace, dict, raise_exception, strftime_now; undefined for another name.
Value global_function(const std::string& name);
Value call_function(Interpreter& interpreter, const std::string& name, const Arguments& arguments);

/// Is there such a method? Those that change their object are refused, as in jinja2's immutable sandbox.
bool has_method(const Value& object, const std::string& name);
Value call_method(Interpreter& interpreter, const Value& object, const std::string& name, const Arguments& arguments);

Value slice(Interpreter& interpreter, const Value& object, std::optional<std::int64_t> begin,
            std::optional<std::int64_t> end, std::optional<std::int64_t> step);
/// loop.name
Value loop_member(const Loop& loop, const std::string& name);
/// fail_unsupported() for a namespace or a loop: no value may come to refer to itself.
void set_member(Namespace& space, const std::string& name, Value value);

/// text.replace(from, to, count); count < 0: all.
std::string replaced(Meter& meter, const std::string& text, const std::string& from, const std::string& to,
                     std::int64_t count);
/// The number, or fail() naming `what`.
std::int64_t integer_argument(const Value& value, std::int64_t fallback, const char* what);
const std::string& text_argument(const Value& value, const char* what);

}  // namespace kedge::jinja
