#include "generate/template/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace kedge::jinja {
namespace {

constexpr std::int64_t max_range = 100'000;  // as jinja2's sandbox

Value range(Interpreter& interpreter, const Arguments& arguments) {
  const auto bound = bind("range", "first,second,step", arguments);
  std::int64_t begin = integer_argument(bound[0], 0, "range"), end = 0;
  if (bound[1].is_undefined()) {
    end = begin, begin = 0;
  } else {
    end = integer_argument(bound[1], 0, "range");
  }
  const std::int64_t step = integer_argument(bound[2], 1, "range");
  if (step == 0) fail("range with a step of 0");
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(items.size()) == max_range) fail("a range of more than 100,000 items");
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return interpreter.list(std::move(items));
}

Value make_namespace(Interpreter&, const Arguments& arguments) {
  const auto space = std::make_shared<Namespace>();
  for (const Value& value : arguments.positional) {
    if (value.dict() == nullptr) fail("namespace() takes named values");
    for (const auto& [key, item] : value.dict()->items) set_member(*space, to_text(key), item);
  }
  for (const auto& [name, value] : arguments.named) set_member(*space, name, value);
  return Value(space);
}

Value make_mapping(Interpreter& interpreter, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& value : arguments.positional) {
    if (value.dict() == nullptr) fail_unsupported("dict() of something else than a mapping and named values");
    items.insert(items.end(), value.dict()->items.begin(), value.dict()->items.end());
  }
  for (const auto& [name, value] : arguments.named) items.emplace_back(Value::text(name), value);
  return make_dict(interpreter.meter(), std::move(items));
}

Value raise_exception(Interpreter& interpreter, const Arguments& arguments) {
  const auto bound = bind("raise_exception", "message", arguments);
  throw Failure(Failure::Kind::raised, interpreter.string_of(bound[0]));
}

// The format is the template's: plain specifiers only.
Value strftime_now(Interpreter& interpreter, const Arguments& arguments) {
  const std::string format = text_argument(bind("strftime_now", "format", arguments)[0], "strftime_now");
  const auto now = static_cast<std::time_t>(interpreter.now().value_or(0));
  std::tm time{};
  gmtime_r(&now, &time);
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char one = ++i < format.size() ? format[i] : 0;
    if (one == 0 || std::string_view("aAbBcdHIjmMpSUwWxXyYeFT%").find(one) == std::string_view::npos) {
      fail_unsupported("this format of a date");
    }
    const char specifier[] = {'%', one, 0};
    char buffer[64];
    out.append(buffer, std::strftime(buffer, sizeof buffer, specifier, &time));
  }
  return interpreter.text(std::move(out));
}

struct Function {
  const char* name;
  Value (*call)(Interpreter&, const Arguments&);
};
constexpr Function functions[] = {
    {"range", range},
    {"namespace", make_namespace},
    {"dict", make_mapping},
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
};

}  // namespace

std::vector<Value> bind(const char* what, const char* parameters, const Arguments& arguments) {
  std::vector<std::string_view> names;
  for (std::string_view rest = parameters; !rest.empty();) {
    const std::size_t comma = rest.find(',');
    names.push_back(rest.substr(0, comma));
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  if (arguments.positional.size() > names.size()) {
    fail(fmt::format("{} takes {} arguments at most, not {}", what, names.size(), arguments.positional.size()));
  }
  std::vector<Value> bound = arguments.positional;
  bound.resize(names.size());
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    const auto i = static_cast<std::size_t>(found - names.begin());
    if (found == names.end() || i < arguments.positional.size()) fail(fmt::format("{} has no argument {}", what, name));
    bound[i] = value;
  }
  return bound;
}

Value global_function(const std::string& name) {
  for (const Function& function : functions) {
    if (name != function.name) continue;
    Callable callable;
    callable.name = name;
    return Value(std::make_shared<const Callable>(std::move(callable)));
  }
  return {};
}

Value call_function(Interpreter& interpreter, const std::string& name, const Arguments& arguments) {
  for (const Function& function : functions) {
    if (name == function.name) return function.call(interpreter, arguments);
  }
  fail("no function " + name);
}

Value loop_member(const Loop& loop, const std::string& name) {
  const auto length = static_cast<std::int64_t>(loop.items->items.size());
  const std::int64_t i = loop.index0;
  const auto item = [&](std::int64_t k) {
    return k < 0 || k >= length ? Value() : loop.items->items[static_cast<std::size_t>(k)];
  };
  if (name == "index") return Value(i + 1);
  if (name == "index0") return Value(i);
  if (name == "revindex") return Value(length - i);
  if (name == "revindex0") return Value(length - i - 1);
  if (name == "first") return Value(i == 0);
  if (name == "last") return Value(i + 1 == length);
  if (name == "length") return Value(length);
  if (name == "previtem") return item(i - 1);
  if (name == "nextitem") return item(i + 1);
  // Only recursive loops, which are unsupported, are deeper.
  if (name == "depth") return Value(std::int64_t{1});
  if (name == "depth0") return Value(std::int64_t{0});
  if (name == "cycle" || name == "changed") fail_unsupported("loop." + name);
  return {};
}

void set_member(Namespace& space, const std::string& name, Value value) {
  if (value.space() != nullptr || value.loop() != nullptr) fail_unsupported("a namespace or a loop inside a namespace");
  if (name.starts_with('_')) fail("a namespace's member begins with _");
  for (auto& [key, old] : space.items) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  space.items.emplace_back(name, std::move(value));
}

std::int64_t integer_argument(const Value& value, std::int64_t fallback, const char* what) {
  if (value.is_undefined()) return fallback;
  std::int64_t number = 0;
  if (!value.as_integer(number)) fail(fmt::format("{}: expected an integer, not {}", what, value.type_name()));
  return number;
}

const std::string& text_argument(const Value& value, const char* what) {
  if (value.string() == nullptr) fail(fmt::format("{}: expected a text, not {}", what, value.type_name()));
  return *value.string();
}

}  // namespace kedge::jinja
