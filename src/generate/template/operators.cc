#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "generate/template/functions.h"
#include "generate/template/text.h"

namespace kedge::jinja {
namespace {

[[noreturn]] void wrong_operands(const std::string& op, const Value& left, const Value& right) {
  fail(fmt::format("{} between {} and {}", op, left.type_name(), right.type_name()));
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) fail("a number beyond 64 bits");
    if (base == 0 || base == 1) return base;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  }
  return result;
}

Value integers(const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = power(a, b);
  } else {
    if (b == 0) fail("a division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (a == std::numeric_limits<std::int64_t>::min() && b == -1) fail("a number beyond 64 bits");
    const std::int64_t remainder = a % b;
    const bool down = remainder != 0 && (remainder < 0) != (b < 0);
    result = op == "//" ? a / b - (down ? 1 : 0) : remainder + (down ? b : 0);
  }
  if (overflow) fail("a number beyond 64 bits");
  return Value(result);
}

Value reals(const std::string& op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) fail("a division by zero");
  if (op == "/") return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  return Value(op == "%" ? remainder : std::round((a - remainder) / b));
}

// text * n, list * n
Value repeated(Interpreter& interpreter, const Value& value, std::int64_t n) {
  const auto count = static_cast<std::uint64_t>(std::max<std::int64_t>(n, 0));
  Meter& meter = interpreter.meter();
  const std::uint64_t weight = std::max<std::uint64_t>(value.weight(), 1);
  meter.check(count > std::numeric_limits<std::uint64_t>::max() / weight ? std::numeric_limits<std::uint64_t>::max()
                                                                         : count * weight);
  meter.work(count * weight);
  if (value.string() != nullptr) {
    std::string out;
    for (std::uint64_t i = 0; i < count; ++i) out += *value.string();
    return interpreter.text(std::move(out));
  }
  meter.check(count * value.list()->items.size() * sizeof(Value));  // no overflow: count * weight is within bounds
  std::vector<Value> items;
  for (std::uint64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return interpreter.list(std::move(items), value.list()->tuple);
}

// Python's rules for bounds that are out of range.
std::vector<std::int64_t> slice_indices(std::int64_t size, std::optional<std::int64_t> begin,
                                        std::optional<std::int64_t> end, std::int64_t step) {
  const auto clip = [&](std::int64_t i, std::int64_t low, std::int64_t high) {
    return std::clamp(i < 0 ? i + size : i, low, high);
  };
  std::vector<std::int64_t> indices;
  if (step > 0) {
    const std::int64_t first = begin ? clip(*begin, 0, size) : 0, last = end ? clip(*end, 0, size) : size;
    for (std::int64_t i = first; i < last; i += std::min(step, size)) indices.push_back(i);
  } else {
    const std::int64_t first = begin ? clip(*begin, -1, size - 1) : size - 1,
                       last = end ? clip(*end, -1, size - 1) : -1;
    for (std::int64_t i = first; i > last; i += std::max(step, -size)) indices.push_back(i);
  }
  return indices;
}

}  // namespace

Value Interpreter::binary(const std::string& op, const Value& left, const Value& right) {
  std::int64_t i = 0, j = 0;
  if (left.as_integer(i) && right.as_integer(j)) return integers(op, i, j);
  double x = 0, y = 0;
  if (left.as_real(x) && right.as_real(y)) return reals(op, x, y);
  if (op == "+" && left.string() != nullptr && right.string() != nullptr) {
    meter_.check(left.string()->size() + right.string()->size());
    return text(*left.string() + *right.string());
  }
  if (op == "+" && left.list() != nullptr && right.list() != nullptr && left.list()->tuple == right.list()->tuple) {
    meter_.check(left.weight() + right.weight() +
                 (left.list()->items.size() + right.list()->items.size()) * sizeof(Value));
    std::vector<Value> items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    return list(std::move(items), left.list()->tuple);
  }
  if (op == "*") {
    if ((left.string() != nullptr || left.list() != nullptr) && right.as_integer(j)) return repeated(*this, left, j);
    if ((right.string() != nullptr || right.list() != nullptr) && left.as_integer(i)) return repeated(*this, right, i);
  }
  if (op == "%" && left.string() != nullptr) fail_unsupported("text formatted with %");
  wrong_operands(op, left, right);
}

bool Interpreter::contains(const Value& container, const Value& item) {
  meter_.work(container.weight());
  if (container.string() != nullptr) {
    const std::string& part = text_argument(item, "what is looked for in a text");
    // Repetitive texts make a search take up to size * size.
    meter_.work(container.weight() * (part.size() / 64));
    return container.string()->find(part) != std::string::npos;
  }
  meter_.work(item.weight());
  if (container.dict() != nullptr) return container.dict()->find(item) != nullptr;
  const std::vector<Value> items = iterate(container);
  return std::any_of(items.begin(), items.end(), [&](const Value& value) { return equal(meter_, value, item); });
}

std::vector<Value> Interpreter::iterate(const Value& value) {
  meter_.work(16 * value.weight());
  if (value.is_undefined()) return {};
  if (value.list() != nullptr) return value.list()->items;
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    for (const auto& item : dict->items) items.push_back(item.first);
  } else if (const std::string* s = value.string()) {
    meter_.check(s->size() * sizeof(Value));
    for (const std::string_view point : code_points(*s)) items.push_back(Value::text(std::string(point)));
  } else {
    fail(fmt::format("a loop over {}", value.type_name()));
  }
  return items;
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail(fmt::format("\"{}\" of an undefined value", name));
  if (object.space() != nullptr) {
    for (const auto& [key, value] : object.space()->items) {
      if (key == name) return value;
    }
    return {};
  }
  if (object.loop() != nullptr) return loop_member(*object.loop(), name);
  if (has_method(object, name)) {
    Callable method;
    method.name = name;
    method.receiver = object;
    return Value(std::make_shared<const Callable>(std::move(method)));
  }
  if (const Dict* dict = object.dict()) {
    meter_.work(dict->items.size());
    if (const Value* value = dict->find(name)) return *value;
  }
  return {};
}

Value Interpreter::subscript(const Value& object, const Value& key) {
  if (object.is_undefined()) fail("an item of an undefined value");
  if (const Dict* dict = object.dict()) {
    meter_.work(dict->items.size() + key.weight());
    if (const Value* value = dict->find(key)) return *value;
  }
  std::int64_t i = 0;
  if ((object.list() != nullptr || object.string() != nullptr) && key.as_integer(i)) {
    if (const List* items = object.list()) {
      const auto size = static_cast<std::int64_t>(items->items.size());
      if (i < 0) i += size;
      return i < 0 || i >= size ? Value() : items->items[static_cast<std::size_t>(i)];
    }
    meter_.work(object.weight());
    const auto points = code_points(*object.string());
    const auto size = static_cast<std::int64_t>(points.size());
    if (i < 0) i += size;
    return i < 0 || i >= size ? Value() : text(std::string(points[static_cast<std::size_t>(i)]));
  }
  return key.string() != nullptr ? attribute(object, *key.string()) : Value();
}

Value slice(Interpreter& interpreter, const Value& object, std::optional<std::int64_t> begin,
            std::optional<std::int64_t> end, std::optional<std::int64_t> step) {
  if (object.is_undefined()) fail("a slice of an undefined value");
  if (step.value_or(1) == 0) fail("a slice's step is 0");
  interpreter.meter().work(16 * object.weight());
  if (const List* list = object.list()) {
    std::vector<Value> items;
    for (const std::int64_t i :
         slice_indices(static_cast<std::int64_t>(list->items.size()), begin, end, step.value_or(1))) {
      items.push_back(list->items[static_cast<std::size_t>(i)]);
    }
    return interpreter.list(std::move(items), list->tuple);
  }
  if (object.string() == nullptr) return {};
  const auto points = code_points(*object.string());
  std::string out;
  for (const std::int64_t i : slice_indices(static_cast<std::int64_t>(points.size()), begin, end, step.value_or(1))) {
    out += points[static_cast<std::size_t>(i)];
  }
  return interpreter.text(std::move(out));
}

}  // namespace kedge::jinja
