// jinja2's filters, with transformers' tojson.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "generate/template/functions.h"
#include "generate/template/text.h"

namespace kedge::jinja {
namespace {

using Bound = std::vector<Value>;

Value from_method(Interpreter& in, const Value& self, const char* method, const Bound& args) {
  return call_method(in, Value::text(in.string_of(self)), method, {.positional = args, .named = {}});
}

Value trim(Interpreter& in, const Value& self, const Bound& args) { return from_method(in, self, "strip", args); }
Value upper(Interpreter& in, const Value& self, const Bound&) { return from_method(in, self, "upper", {}); }
Value lower(Interpreter& in, const Value& self, const Bound&) { return from_method(in, self, "lower", {}); }
Value capitalized(Interpreter& in, const Value& self, const Bound&) { return from_method(in, self, "capitalize", {}); }

// Words begin behind whitespace, hyphens and opening brackets.
Value title(Interpreter& in, const Value& self, const Bound&) {
  const std::string text = in.string_of(self);
  std::string out;
  bool start = true;
  for (const std::string_view point : code_points(text)) {
    out += start ? to_upper(point) : to_lower(point);
    start = strip(point, true, false).empty() || std::string_view("-({[<").find(point) != std::string_view::npos;
  }
  return in.text(std::move(out));
}

Value replace(Interpreter& in, const Value& self, const Bound& args) {
  const std::int64_t count = args[2].is_none() ? -1 : integer_argument(args[2], -1, "replace");
  return in.text(replaced(in.meter(), in.string_of(self), in.string_of(args[0]), in.string_of(args[1]), count));
}

Value to_json(Interpreter& in, const Value& self, const Bound& args) {
  JsonStyle style;
  style.ensure_ascii = args[0].truth();
  style.sort_keys = args[3].truth();
  if (!args[1].is_undefined() && !args[1].is_none()) {
    const std::int64_t indent = integer_argument(args[1], 0, "tojson");
    if (indent < 0 || indent > 16) fail_unsupported("an indent outside of 0 to 16");
    style.indent = static_cast<int>(indent);
    style.item_separator = ",";
  }
  if (args[2].list() != nullptr && args[2].list()->items.size() == 2) {
    style.item_separator = text_argument(args[2].list()->items[0], "separators");
    style.key_separator = text_argument(args[2].list()->items[1], "separators");
  }
  return in.text(to_json_text(in.meter(), self, style));
}

Value length(Interpreter& in, const Value& self, const Bound&) {
  if (const std::string* s = self.string()) {
    in.meter().work(s->size());
    return Value(count_code_points(*s));
  }
  if (self.list() != nullptr) return Value(static_cast<std::int64_t>(self.list()->items.size()));
  if (self.dict() != nullptr) return Value(static_cast<std::int64_t>(self.dict()->items.size()));
  if (self.is_undefined()) return Value(std::int64_t{0});
  fail(fmt::format("the length of {}", self.type_name()));
}

Value fallback(Interpreter&, const Value& self, const Bound& args) {
  const bool missing = self.is_undefined() || (args[1].truth() && !self.truth());
  if (!missing) return self;
  return args[0].is_undefined() ? Value::text("") : args[0];
}

Value items(Interpreter& in, const Value& self, const Bound&) {
  if (self.is_undefined()) return in.list({});
  if (self.dict() == nullptr) fail("items of something else than a mapping");
  return call_method(in, self, "items", {});
}

// An item's attribute "a.b", or the item itself.
Value member_of(Interpreter& in, const Value& item, const Value& path, const Value& otherwise = {}) {
  if (path.is_undefined() || path.is_none()) return item;
  Value value = item;
  if (path.integer() != nullptr) {
    value = in.subscript(value, path);
  } else {
    std::string_view rest = text_argument(path, "attribute");
    while (!value.is_undefined()) {
      const std::size_t dot = rest.find('.');
      value = in.subscript(value, Value::text(std::string(rest.substr(0, dot))));
      if (dot == std::string_view::npos) break;
      rest.remove_prefix(dot + 1);
    }
  }
  return value.is_undefined() ? otherwise : value;
}

Value join(Interpreter& in, const Value& self, const Bound& args) {
  const std::string separator = args[0].is_undefined() ? "" : in.string_of(args[0]);
  std::string out;
  bool first = true;
  for (const Value& item : in.iterate(self)) {
    if (!first) out += separator;
    first = false;
    out += in.string_of(member_of(in, item, args[1]));
    in.meter().work(separator.size());
    in.meter().check(out.size());
  }
  return in.text(std::move(out));
}

Value first(Interpreter& in, const Value& self, const Bound&) {
  const auto all = in.iterate(self);
  return all.empty() ? Value() : all.front();
}
Value last(Interpreter& in, const Value& self, const Bound&) {
  const auto all = in.iterate(self);
  return all.empty() ? Value() : all.back();
}
Value to_list(Interpreter& in, const Value& self, const Bound&) { return in.list(in.iterate(self)); }
Value to_string(Interpreter& in, const Value& self, const Bound&) { return in.text(in.string_of(self)); }
Value same(Interpreter&, const Value& self, const Bound&) { return self; }

Value reversed(Interpreter& in, const Value& self, const Bound&) {
  if (self.string() != nullptr) return slice(in, self, std::nullopt, std::nullopt, -1);
  auto all = in.iterate(self);
  std::reverse(all.begin(), all.end());
  return in.list(std::move(all));
}

// Texts without their case, unless asked.
Value sort_key(Interpreter& in, const Value& value, bool case_sensitive) {
  return value.string() != nullptr && !case_sensitive ? in.text(to_lower(*value.string())) : value;
}

void sort_by(Interpreter& in, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  // jinja2 reverses a stable order: equal items keep theirs.
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    in.meter().work(16 + std::min(a.first.weight(), b.first.weight()));
    return reverse ? compare(in.meter(), b.first, a.first) < 0 : compare(in.meter(), a.first, b.first) < 0;
  });
}

Value sorted(Interpreter& in, const Value& self, const Bound& args) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : in.iterate(self)) {
    Value key = sort_key(in, member_of(in, item, args[2]), args[1].truth());
    keyed.emplace_back(std::move(key), std::move(item));
  }
  sort_by(in, keyed, args[0].truth());
  std::vector<Value> out;
  for (auto& item : keyed) out.push_back(std::move(item.second));
  return in.list(std::move(out));
}

Value dictsort(Interpreter& in, const Value& self, const Bound& args) {
  if (self.dict() == nullptr) fail("dictsort of something else than a mapping");
  const bool by_value = args[1].string() != nullptr && *args[1].string() == "value";
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : self.dict()->items) {
    keyed.emplace_back(sort_key(in, by_value ? value : key, args[0].truth()), in.list({key, value}, true));
  }
  sort_by(in, keyed, args[2].truth());
  std::vector<Value> out;
  for (auto& item : keyed) out.push_back(std::move(item.second));
  return in.list(std::move(out));
}

Value unique(Interpreter& in, const Value& self, const Bound& args) {
  std::vector<Value> keys, out;
  for (Value& item : in.iterate(self)) {
    const Value key = sort_key(in, member_of(in, item, args[1]), args[0].truth());
    const bool seen = std::any_of(keys.begin(), keys.end(), [&](const Value& k) {
      in.meter().work(16 + std::min(k.weight(), key.weight()));
      return equal(in.meter(), k, key);
    });
    if (seen) continue;
    keys.push_back(key);
    out.push_back(std::move(item));
  }
  return in.list(std::move(out));
}

Value extreme(Interpreter& in, const Value& self, const Bound& args, bool most) {
  Value best, best_key;
  bool any = false;
  for (const Value& item : in.iterate(self)) {
    const Value key = sort_key(in, member_of(in, item, args[1]), args[0].truth());
    const int order = any ? compare(in.meter(), key, best_key) : 0;
    if (any && (most ? order <= 0 : order >= 0)) continue;
    best = item, best_key = key, any = true;
  }
  return best;
}
Value least(Interpreter& in, const Value& self, const Bound& args) { return extreme(in, self, args, false); }
Value most(Interpreter& in, const Value& self, const Bound& args) { return extreme(in, self, args, true); }

Value sum(Interpreter& in, const Value& self, const Bound& args) {
  Value total = args[1].is_undefined() ? Value(std::int64_t{0}) : args[1];
  for (const Value& item : in.iterate(self)) total = in.binary("+", total, member_of(in, item, args[0]));
  return total;
}

Value absolute(Interpreter& in, const Value& self, const Bound&) {
  double number = 0;
  if (!self.as_real(number)) fail("abs of something else than a number");
  return number < 0 ? in.binary("-", Value(std::int64_t{0}), self) : self;
}

Value rounded(Interpreter&, const Value& self, const Bound& args) {
  double number = 0;
  if (!self.as_real(number)) fail("round of something else than a number");
  const std::int64_t precision = integer_argument(args[0], 0, "round");
  if (precision < 0 || precision > 17) fail_unsupported("a precision outside of 0 to 17");
  const std::string method = args[1].is_undefined() ? "common" : text_argument(args[1], "round");
  if (method == "common") {
    // printf rounds the exact binary value, as Python does.
    const std::string digits = fmt::format("{:.{}f}", number, precision);
    return Value(std::strtod(digits.c_str(), nullptr));
  }
  if (method != "ceil" && method != "floor") fail("round knows common, ceil and floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return Value((method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale)) / scale);
}

Value to_integer(Interpreter&, const Value& self, const Bound& args) {
  if (integer_argument(args[1], 10, "int") != 10) fail_unsupported("numbers that are not decimal");
  const Value otherwise = args[0].is_undefined() ? Value(std::int64_t{0}) : args[0];
  std::int64_t integer = 0;
  if (self.as_integer(integer)) return Value(integer);
  double number = 0;
  if (self.real() != nullptr) {
    number = *self.real();
  } else if (self.string() != nullptr) {
    const std::string text(strip(*self.string(), true, true));
    char* end = nullptr;
    errno = 0;
    integer = std::strtoll(text.c_str(), &end, 10);
    if (!text.empty() && *end == '\0' && errno == 0) return Value(integer);
    number = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') return otherwise;
  } else {
    return otherwise;
  }
  if (!(std::fabs(number) < 9e18)) return otherwise;
  return Value(static_cast<std::int64_t>(number));
}

Value to_real(Interpreter&, const Value& self, const Bound& args) {
  double number = 0;
  if (self.as_real(number)) return Value(number);
  if (self.string() != nullptr) {
    const std::string text(strip(*self.string(), true, true));
    char* end = nullptr;
    number = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0') return Value(number);
  }
  return args[0].is_undefined() ? Value(0.0) : args[0];
}

Value indent(Interpreter& in, const Value& self, const Bound& args) {
  std::string space;
  if (args[0].string() != nullptr) {
    space = *args[0].string();
  } else {
    const std::int64_t width = integer_argument(args[0], 4, "indent");
    if (width < 0 || width > 1000) fail_unsupported("an indent outside of 0 to 1000");
    space.assign(static_cast<std::size_t>(width), ' ');
  }
  const std::string text = in.string_of(self);
  std::string out = args[1].truth() ? space : "";
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const bool blank = end == begin;
    if (begin > 0 && (!blank || args[2].truth())) out += space;
    out.append(text, begin, end + 1 - begin);
    in.meter().bytes(space.size()), in.meter().check(out.size());
    begin = end + 1;
  }
  return in.text(std::move(out));
}

Value escape(Interpreter& in, const Value& self, const Bound&) {
  static constexpr std::string_view special = "&<>'\"";
  static constexpr const char* entities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
  std::string out;
  for (const char c : in.string_of(self)) {
    const std::size_t k = special.find(c);
    if (k == std::string_view::npos) {
      out += c;
    } else {
      out += entities[k];
    }
  }
  return in.text(std::move(out));
}

// --- filters over items by a test or a filter ---

// The arguments behind the first n.
Arguments behind(Interpreter& in, const Arguments& arguments, std::size_t n) {
  in.meter().work(arguments.positional.size() * sizeof(Value));
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(n));
  return rest;
}

Value chosen(Interpreter& in, const Value& self, const Arguments& arguments, bool by_attribute, bool wanted) {
  const std::size_t fixed = by_attribute ? 1 : 0;
  if (arguments.positional.size() < fixed) fail("selectattr needs an attribute");
  const bool has_test = arguments.positional.size() > fixed;
  const std::string test = has_test ? text_argument(arguments.positional[fixed], "select") : "";
  const Arguments rest = behind(in, arguments, fixed + (has_test ? 1 : 0));
  std::vector<Value> out;
  for (Value& item : in.iterate(self)) {
    const Value subject = by_attribute ? member_of(in, item, arguments.positional[0]) : item;
    const bool holds = has_test ? in.test(test, subject, rest) : subject.truth();
    if (holds == wanted) out.push_back(std::move(item));
  }
  return in.list(std::move(out));
}
Value select(Interpreter& in, const Value& self, const Arguments& args) { return chosen(in, self, args, false, true); }
Value reject(Interpreter& in, const Value& self, const Arguments& args) { return chosen(in, self, args, false, false); }
Value selectattr(Interpreter& in, const Value& self, const Arguments& args) {
  return chosen(in, self, args, true, true);
}
Value rejectattr(Interpreter& in, const Value& self, const Arguments& args) {
  return chosen(in, self, args, true, false);
}

Value map(Interpreter& in, const Value& self, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const auto bound = bind("map", "attribute,default", arguments);
    if (bound[0].is_undefined()) fail("map needs a filter or an attribute");
    for (const Value& item : in.iterate(self)) out.push_back(member_of(in, item, bound[0], bound[1]));
  } else {
    const std::string name = text_argument(arguments.positional[0], "map");
    const Arguments rest = behind(in, arguments, 1);
    for (const Value& item : in.iterate(self)) out.push_back(in.filter_within(name, item, rest));
  }
  return in.list(std::move(out));
}

struct Filter {
  const char* name;
  const char* parameters;
  Value (*call)(Interpreter&, const Value&, const Bound&);
};
constexpr Filter filters[] = {
    {"trim", "chars", trim},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", to_json},
    {"join", "d,attribute", join},
    {"length", "", length},
    {"count", "", length},
    {"default", "default_value,boolean", fallback},
    {"d", "default_value,boolean", fallback},
    {"items", "", items},
    {"upper", "", upper},
    {"lower", "", lower},
    {"capitalize", "", capitalized},
    {"title", "", title},
    {"replace", "old,new,count", replace},
    {"first", "", first},
    {"last", "", last},
    {"list", "", to_list},
    {"string", "", to_string},
    {"safe", "", same},
    {"reverse", "", reversed},
    {"sort", "reverse,case_sensitive,attribute", sorted},
    {"dictsort", "case_sensitive,by,reverse", dictsort},
    {"unique", "case_sensitive,attribute", unique},
    {"min", "case_sensitive,attribute", least},
    {"max", "case_sensitive,attribute", most},
    {"sum", "attribute,start", sum},
    {"abs", "", absolute},
    {"round", "precision,method", rounded},
    {"int", "default,base", to_integer},
    {"float", "default", to_real},
    {"indent", "width,first,blank", indent},
    {"escape", "", escape},
    {"e", "", escape},
};

struct ItemFilter {
  const char* name;
  Value (*call)(Interpreter&, const Value&, const Arguments&);
};
constexpr ItemFilter item_filters[] = {
    {"map", map}, {"select", select}, {"reject", reject}, {"selectattr", selectattr}, {"rejectattr", rejectattr},
};

}  // namespace

Value Interpreter::filter(const std::string& name, const Value& subject, const Arguments& arguments) {
  for (const Filter& filter : filters) {
    if (name == filter.name) return filter.call(*this, subject, bind(filter.name, filter.parameters, arguments));
  }
  for (const ItemFilter& filter : item_filters) {
    if (name == filter.name) return filter.call(*this, subject, arguments);
  }
  fail_unsupported("the filter " + name);
}

}  // namespace kedge::jinja
