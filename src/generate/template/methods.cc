// Methods of Python's str, list and dict that templates call.
#include <fmt/format.h>

#include <algorithm>

#include "generate/template/functions.h"
#include "generate/template/text.h"
#include "generate/tokenizer/unicode.h"

namespace kedge::jinja {
namespace {

using Bound = std::vector<Value>;

Value strip_ends(Interpreter& in, const Value& self, const Bound& args, bool left, bool right) {
  const bool all = args[0].is_undefined() || args[0].is_none();
  const std::string chars = all ? "" : text_argument(args[0], "strip");
  if (!all && chars.empty()) return self;
  in.meter().work(self.weight() * (chars.size() + 1));
  return in.text(std::string(strip(*self.string(), left, right, chars)));
}
Value str_strip(Interpreter& in, const Value& self, const Bound& args) {
  return strip_ends(in, self, args, true, true);
}
Value str_lstrip(Interpreter& in, const Value& self, const Bound& args) {
  return strip_ends(in, self, args, true, false);
}
Value str_rstrip(Interpreter& in, const Value& self, const Bound& args) {
  return strip_ends(in, self, args, false, true);
}

// Between runs of whitespace; from the left, or from the right.
std::vector<std::string_view> split_spaces(std::string_view text, std::int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  for (;;) {
    text = strip(text, !from_right, from_right);
    if (text.empty()) break;
    if (limit == 0) {
      parts.push_back(text);
      break;
    }
    std::size_t cut = from_right ? text.size() : 0;
    if (!from_right) {
      for (std::size_t pos = 0; pos < text.size(); cut = pos) {
        if (is_python_space(unicode::next(text, pos))) break;
      }
      parts.push_back(text.substr(0, cut));
      text.remove_prefix(cut);
    } else {
      const auto points = code_points(text);
      std::size_t n = points.size();
      while (n > 0) {
        std::size_t pos = 0;
        if (is_python_space(unicode::next(points[n - 1], pos))) break;
        cut -= points[--n].size();
      }
      parts.push_back(text.substr(cut));
      text.remove_suffix(text.size() - cut);
    }
    --limit;
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, std::int64_t limit,
                                       bool from_right) {
  std::vector<std::string_view> parts;
  for (; limit != 0; --limit) {
    const std::size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(from_right ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value texts(Interpreter& in, const std::vector<std::string_view>& parts, bool tuple = false) {
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(in.text(std::string(part)));
  return in.list(std::move(items), tuple);
}

Value split(Interpreter& in, const Value& self, const Bound& args, bool from_right) {
  const std::int64_t limit = integer_argument(args[1], -1, "split");
  in.meter().work(16 * self.weight());
  if (args[0].is_undefined() || args[0].is_none()) {
    if (from_right && limit > 1000) fail_unsupported("rsplit() at whitespace more than 1000 times");
    in.meter().work(from_right && limit > 0 ? 16 * self.weight() * static_cast<std::uint64_t>(limit) : 0);
    if (from_right && limit < 0) return texts(in, split_spaces(*self.string(), -1, false));
    return texts(in, split_spaces(*self.string(), limit, from_right));
  }
  const std::string& separator = text_argument(args[0], "split");
  if (separator.empty()) fail("split at an empty text");
  in.meter().work(self.weight() * (separator.size() / 64));
  return texts(in, split_at(*self.string(), separator, limit, from_right));
}
Value str_split(Interpreter& in, const Value& self, const Bound& args) { return split(in, self, args, false); }
Value str_rsplit(Interpreter& in, const Value& self, const Bound& args) { return split(in, self, args, true); }

Value str_splitlines(Interpreter& in, const Value& self, const Bound& args) {
  std::vector<std::string_view> lines;
  std::string_view text = *self.string();
  in.meter().work(16 * self.weight());
  while (!text.empty()) {
    const std::size_t end = text.find_first_of("\n\r");
    std::size_t next = end == std::string_view::npos ? text.size() : end + 1;
    if (end != std::string_view::npos && text.substr(end, 2) == "\r\n") ++next;
    lines.push_back(args[0].truth() ? text.substr(0, next) : text.substr(0, end));
    text.remove_prefix(next);
  }
  return texts(in, lines);
}

Value partition_at(Interpreter& in, const Value& self, const Bound& args, bool last) {
  const std::string& separator = text_argument(args[0], "partition");
  if (separator.empty()) fail("partition at an empty text");
  const std::string_view text = *self.string();
  in.meter().work(self.weight() * (separator.size() / 64 + 1));
  const std::size_t at = last ? text.rfind(separator) : text.find(separator);
  if (at == std::string_view::npos) {
    return last ? texts(in, {"", "", text}, true) : texts(in, {text, "", ""}, true);
  }
  return texts(in, {text.substr(0, at), separator, text.substr(at + separator.size())}, true);
}
Value str_partition(Interpreter& in, const Value& self, const Bound& args) {
  return partition_at(in, self, args, false);
}
Value str_rpartition(Interpreter& in, const Value& self, const Bound& args) {
  return partition_at(in, self, args, true);
}

// One text, or any of a tuple.
template <class Matches>
Value any_of(Interpreter& in, const Value& argument, const char* what, Matches&& matches) {
  in.meter().work(argument.weight());
  if (argument.list() == nullptr) return Value(static_cast<bool>(matches(text_argument(argument, what))));
  const auto& items = argument.list()->items;
  return Value(
      std::any_of(items.begin(), items.end(), [&](const Value& item) { return matches(text_argument(item, what)); }));
}
Value str_startswith(Interpreter& in, const Value& self, const Bound& args) {
  return any_of(in, args[0], "startswith", [&](const std::string& part) { return self.string()->starts_with(part); });
}
Value str_endswith(Interpreter& in, const Value& self, const Bound& args) {
  return any_of(in, args[0], "endswith", [&](const std::string& part) { return self.string()->ends_with(part); });
}
Value str_removeprefix(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& part = text_argument(args[0], "removeprefix");
  return self.string()->starts_with(part) ? in.text(self.string()->substr(part.size())) : self;
}
Value str_removesuffix(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& part = text_argument(args[0], "removesuffix");
  return self.string()->ends_with(part) ? in.text(self.string()->substr(0, self.string()->size() - part.size())) : self;
}

Value str_replace(Interpreter& in, const Value& self, const Bound& args) {
  return in.text(replaced(in.meter(), *self.string(), text_argument(args[0], "replace"),
                          text_argument(args[1], "replace"), integer_argument(args[2], -1, "replace")));
}

Value str_upper(Interpreter& in, const Value& self, const Bound&) { return in.text(to_upper(*self.string())); }
Value str_lower(Interpreter& in, const Value& self, const Bound&) { return in.text(to_lower(*self.string())); }
Value str_capitalize(Interpreter& in, const Value& self, const Bound&) { return in.text(capitalize(*self.string())); }
Value str_title(Interpreter& in, const Value& self, const Bound&) {
  const std::string lower = to_lower(*self.string()), upper = to_upper(*self.string());
  std::string out;
  bool in_word = false;
  // Letters are what has a case.
  const auto low = code_points(lower), up = code_points(upper);
  for (std::size_t i = 0; i < low.size(); ++i) {
    out += in_word ? low[i] : up[i];
    in_word = low[i] != up[i];
  }
  return in.text(std::move(out));
}

Value find_from(Interpreter& in, const Value& self, const Bound& args, bool last) {
  const std::string& part = text_argument(args[0], "find");
  in.meter().work(self.weight() * (part.size() / 64 + 1));
  const std::size_t at = last ? self.string()->rfind(part) : self.string()->find(part);
  return Value(at == std::string::npos ? std::int64_t{-1}
                                       : count_code_points(std::string_view(*self.string()).substr(0, at)));
}
Value str_find(Interpreter& in, const Value& self, const Bound& args) { return find_from(in, self, args, false); }
Value str_rfind(Interpreter& in, const Value& self, const Bound& args) { return find_from(in, self, args, true); }

Value str_count(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& part = text_argument(args[0], "count");
  if (part.empty()) return Value(count_code_points(*self.string()) + 1);
  in.meter().work(self.weight() * (part.size() / 64 + 1));
  std::int64_t count = 0;
  for (std::size_t at = 0; (at = self.string()->find(part, at)) != std::string::npos; at += part.size()) ++count;
  return Value(count);
}

Value str_join(Interpreter& in, const Value& self, const Bound& args) {
  std::string out;
  bool first = true;
  for (const Value& item : in.iterate(args[0])) {
    if (!first) out += *self.string();
    first = false;
    out += text_argument(item, "join");
    in.meter().bytes(out.size() < 4096 ? 0 : self.weight() + item.weight());
    in.meter().check(out.size());
  }
  return in.text(std::move(out));
}

template <class Matches>
Value all_points(const Value& self, Matches&& matches) {
  const auto points = code_points(*self.string());
  return Value(!points.empty() && std::all_of(points.begin(), points.end(), matches));
}
Value str_isdigit(Interpreter&, const Value& self, const Bound&) {
  return all_points(self, [](std::string_view p) { return p.size() == 1 && p[0] >= '0' && p[0] <= '9'; });
}
Value str_isspace(Interpreter&, const Value& self, const Bound&) {
  return all_points(self, [](std::string_view p) {
    std::size_t pos = 0;
    return is_python_space(unicode::next(p, pos));
  });
}

Value dict_items(Interpreter& in, const Value& self, const Bound&) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->items) items.push_back(in.list({key, value}, true));
  return in.list(std::move(items));
}
Value dict_keys(Interpreter& in, const Value& self, const Bound&) { return in.list(in.iterate(self)); }
Value dict_values(Interpreter& in, const Value& self, const Bound&) {
  std::vector<Value> items;
  for (const auto& item : self.dict()->items) items.push_back(item.second);
  return in.list(std::move(items));
}
Value dict_get(Interpreter& in, const Value& self, const Bound& args) {
  in.meter().work(self.dict()->items.size());
  if (const Value* value = self.dict()->find(args[0])) return *value;
  return args[1].is_undefined() ? Value(None{}) : args[1];
}
Value same(Interpreter&, const Value& self, const Bound&) { return self; }

Value list_index(Interpreter& in, const Value& self, const Bound& args) {
  in.meter().work(self.weight() + args[0].weight());
  const auto& items = self.list()->items;
  const auto at =
      std::find_if(items.begin(), items.end(), [&](const Value& item) { return equal(in.meter(), item, args[0]); });
  if (at == items.end()) fail("index() of an item that is not in the list");
  return Value(static_cast<std::int64_t>(at - items.begin()));
}
Value list_count(Interpreter& in, const Value& self, const Bound& args) {
  in.meter().work(self.weight() + args[0].weight());
  const auto& items = self.list()->items;
  return Value(static_cast<std::int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(in.meter(), item, args[0]); })));
}

Value refuse(Interpreter&, const Value&, const Bound&) { fail("a method that changes its object was called"); }
Value not_here(Interpreter&, const Value&, const Bound&) { fail_unsupported("a method of text that kedge lacks"); }

struct Method {
  const char* name;
  const char* parameters;
  Value (*call)(Interpreter&, const Value&, const Bound&);
};
constexpr Method str_methods[] = {
    {"strip", "chars", str_strip},
    {"lstrip", "chars", str_lstrip},
    {"rstrip", "chars", str_rstrip},
    {"split", "sep,maxsplit", str_split},
    {"rsplit", "sep,maxsplit", str_rsplit},
    {"splitlines", "keepends", str_splitlines},
    {"partition", "sep", str_partition},
    {"rpartition", "sep", str_rpartition},
    {"startswith", "prefix", str_startswith},
    {"endswith", "suffix", str_endswith},
    {"removeprefix", "prefix", str_removeprefix},
    {"removesuffix", "suffix", str_removesuffix},
    {"replace", "old,new,count", str_replace},
    {"upper", "", str_upper},
    {"lower", "", str_lower},
    {"capitalize", "", str_capitalize},
    {"title", "", str_title},
    {"find", "sub", str_find},
    {"rfind", "sub", str_rfind},
    {"count", "sub", str_count},
    {"join", "iterable", str_join},
    {"isdigit", "", str_isdigit},
    {"isspace", "", str_isspace},
    {"format", "a,b,c,d,e,f", not_here},
};
constexpr Method dict_methods[] = {
    {"items", "", dict_items},   {"keys", "", dict_keys},
    {"values", "", dict_values}, {"get", "key,default", dict_get},
    {"copy", "", same},          {"pop", "key,default", refuse},
    {"update", "other", refuse}, {"setdefault", "key,default", refuse},
    {"clear", "", refuse},       {"popitem", "", refuse},
};
constexpr Method list_methods[] = {
    {"index", "value", list_index},  {"count", "value", list_count}, {"copy", "", same},
    {"append", "value", refuse},     {"extend", "values", refuse},   {"insert", "index,value", refuse},
    {"pop", "index", refuse},        {"remove", "value", refuse},    {"reverse", "", refuse},
    {"sort", "key,reverse", refuse}, {"clear", "", refuse},
};

const Method* find_method(const Value& object, const std::string& name) {
  const auto search = [&](const auto& methods) -> const Method* {
    for (const Method& method : methods) {
      if (name == method.name) return &method;
    }
    return nullptr;
  };
  if (object.string() != nullptr) return search(str_methods);
  if (object.dict() != nullptr) return search(dict_methods);
  return object.list() != nullptr ? search(list_methods) : nullptr;
}

}  // namespace

bool has_method(const Value& object, const std::string& name) { return find_method(object, name) != nullptr; }

Value call_method(Interpreter& interpreter, const Value& object, const std::string& name, const Arguments& arguments) {
  const Method* method = find_method(object, name);
  if (method == nullptr) fail("no method " + name);
  interpreter.meter().work(object.weight());
  return method->call(interpreter, object, bind(method->name, method->parameters, arguments));
}

std::string replaced(Meter& meter, const std::string& text, const std::string& from, const std::string& to,
                     std::int64_t count) {
  meter.work(text.size() * (from.size() / 64 + 1));
  std::string out;
  const auto add = [&](std::string_view part) {
    meter.check(out.size() + part.size());
    out += part;
  };
  if (from.empty()) {  // before each code point and at the end
    for (const std::string_view point : code_points(text)) {
      if (count != 0) add(to), --count;
      add(point);
    }
    if (count != 0) add(to);
    return out;
  }
  std::size_t begin = 0;
  for (; count != 0; --count) {
    const std::size_t at = text.find(from, begin);
    if (at == std::string::npos) break;
    add(std::string_view(text).substr(begin, at - begin));
    add(to);
    begin = at + from.size();
  }
  add(std::string_view(text).substr(begin));
  return out;
}

}  // namespace kedge::jinja
