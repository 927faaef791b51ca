#include "generate/template/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/json.h"

namespace kedge::jinja {
namespace {

constexpr int max_depth = 80;  // JSON's 64 and some

int depth_of(const Value& value) {
  if (value.space() != nullptr || value.loop() != nullptr) {
    fail_unsupported("a namespace or a loop inside a list, a mapping or a namespace");
  }
  return value.depth();
}

void check_depth(int depth) {
  if (depth > max_depth) fail("a value nests too deeply");
}

}  // namespace

void fail(std::string message) { throw Failure(Failure::Kind::error, std::move(message)); }
void fail_unsupported(std::string message) { throw Failure(Failure::Kind::unsupported, std::move(message)); }

Value Value::from_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::null: return Value(None{});
    case Json::value_t::boolean: return Value(json.get<bool>());
    case Json::value_t::number_integer: return Value(json.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) fail("a number beyond 64 bits");
      return Value(json.get<std::int64_t>());
    case Json::value_t::number_float: return Value(json.get<double>());
    case Json::value_t::string: return text(json.get<std::string>());
    case Json::value_t::array: {
      List list;
      for (const Json& item : json) {
        list.items.push_back(from_json(item));
        list.depth = std::max(list.depth, list.items.back().depth() + 1);
        list.weight += list.items.back().weight();
      }
      check_depth(list.depth);
      return Value(std::make_shared<const List>(std::move(list)));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) {
        dict.items.emplace_back(text(key), from_json(item));
        dict.depth = std::max(dict.depth, dict.items.back().second.depth() + 1);
        dict.weight += key.size() + 1 + dict.items.back().second.weight();
      }
      check_depth(dict.depth);
      return Value(std::make_shared<const Dict>(std::move(dict)));
    }
    default: KEDGE_CHECK(false); return {};
  }
}

bool Value::as_integer(std::int64_t& out) const noexcept {
  if (const bool* b = boolean()) return out = *b ? 1 : 0, true;
  if (const std::int64_t* i = integer()) return out = *i, true;
  return false;
}

bool Value::as_real(double& out) const noexcept {
  if (const double* r = real()) return out = *r, true;
  std::int64_t i = 0;
  if (!as_integer(i)) return false;
  out = static_cast<double>(i);
  return true;
}

bool Value::truth() const noexcept {
  if (is_undefined() || is_none()) return false;
  double number = 0;
  if (as_real(number)) return number != 0;
  if (string() != nullptr) return !string()->empty();
  if (list() != nullptr) return !list()->items.empty();
  if (dict() != nullptr) return !dict()->items.empty();
  return true;
}

int Value::depth() const noexcept {
  if (list() != nullptr) return list()->depth;
  if (dict() != nullptr) return dict()->depth;
  return callable() != nullptr ? callable()->receiver.depth() + 1 : 0;
}

const char* Value::type_name() const noexcept {
  static constexpr const char* names[] = {"undefined", "None", "bool",      "int",      "float", "str",
                                          "list",      "dict", "namespace", "function", "loop"};
  return names[data_.index()];
}

std::uint64_t Value::weight() const noexcept {
  if (string() != nullptr) return string()->size() + 1;
  if (list() != nullptr) return list()->weight;
  return dict() != nullptr ? dict()->weight : 1;
}

namespace {

bool equal_scalars(const Value& a, const Value& b) {
  std::int64_t i = 0, j = 0;
  if (a.as_integer(i) && b.as_integer(j)) return i == j;
  double x = 0, y = 0;
  if (a.as_real(x) && b.as_real(y)) return x == y;
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() == *b.string();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined()) ||
         (a.space() != nullptr && a.space() == b.space()) || (a.callable() != nullptr && a.callable() == b.callable());
}

}  // namespace

// Keys are scalars.
const Value* Dict::find(const Value& key) const {
  for (const auto& [k, v] : items) {
    if (equal_scalars(k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.string() != nullptr && *k.string() == key) return &v;
  }
  return nullptr;
}

Value make_text(Meter& meter, std::string text) {
  meter.bytes(text.size());
  return Value::text(std::move(text));
}

Value make_list(Meter& meter, std::vector<Value> items, bool tuple) {
  List list{std::move(items), tuple};
  int depth = 0;
  for (const Value& item : list.items) {
    depth = std::max(depth, depth_of(item));
    list.weight += item.weight();
  }
  list.depth = depth + 1;
  check_depth(list.depth);
  meter.check(list.weight + list.items.size() * sizeof(Value));
  meter.bytes(list.weight);
  meter.work(list.items.size() * sizeof(Value));
  return Value(std::make_shared<const List>(std::move(list)));
}

Value make_dict(Meter& meter, std::vector<std::pair<Value, Value>> items) {
  Dict dict;
  for (auto& [key, value] : items) {
    dict.depth = std::max(dict.depth, depth_of(value) + 1);
    dict.weight += key.weight() + value.weight();
    meter.work(key.weight() + dict.items.size());
    if (depth_of(key) != 0) fail_unsupported("a mapping whose keys are no scalars");
    if (const Value* old = dict.find(key)) {
      *const_cast<Value*>(old) = std::move(value);
    } else {
      dict.items.emplace_back(std::move(key), std::move(value));
    }
  }
  check_depth(dict.depth);
  meter.bytes(dict.weight);
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

bool equal(Meter& meter, const Value& a, const Value& b) {
  if (a.list() != nullptr && b.list() != nullptr) {
    const List &l = *a.list(), &r = *b.list();
    meter.work(std::min(l.items.size(), r.items.size()));
    return l.tuple == r.tuple && std::equal(l.items.begin(), l.items.end(), r.items.begin(), r.items.end(),
                                            [&](const Value& x, const Value& y) { return equal(meter, x, y); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    const Dict &l = *a.dict(), &r = *b.dict();
    return l.items.size() == r.items.size() && std::all_of(l.items.begin(), l.items.end(), [&](const auto& item) {
             meter.work(r.items.size());  // keys are found by a walk
             const Value* other = r.find(item.first);
             return other != nullptr && equal(meter, item.second, *other);
           });
  }
  return equal_scalars(a, b);
}

int compare(Meter& meter, const Value& a, const Value& b) {
  const auto order = [](auto x, auto y) { return x < y ? -1 : (y < x ? 1 : 0); };
  std::int64_t i = 0, j = 0;
  if (a.as_integer(i) && b.as_integer(j)) return order(i, j);
  double x = 0, y = 0;
  if (a.as_real(x) && b.as_real(y)) return order(x, y);
  // UTF-8 keeps the order of code points.
  if (a.string() != nullptr && b.string() != nullptr) return order(std::string_view(*a.string()), *b.string());
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto &l = a.list()->items, &r = b.list()->items;
    for (std::size_t k = 0; k < std::min(l.size(), r.size()); ++k) {
      if (!equal(meter, l[k], r[k])) return compare(meter, l[k], r[k]);
    }
    return order(l.size(), r.size());
  }
  fail(fmt::format("no order between {} and {}", a.type_name(), b.type_name()));
}

}  // namespace kedge::jinja
