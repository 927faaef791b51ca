// Values of chat templates: Python's, as far as templates use them. Immutable, but for namespaces.
//
// Strings are valid UTF-8; Python counts code points, so do length, index and slice here. Containers know their depth,
// which is bounded, and hold neither namespaces nor loops, so that no value refers to itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kedge::jinja {

/// A template's own fault, or a limit; the renderer adds file and line.
class Failure {
 public:
  enum class Kind { error, unsupported, raised };
  Failure(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  Kind kind;
  std::string message;
};
[[noreturn]] void fail(std::string message);
[[noreturn]] void fail_unsupported(std::string message);

/// Bounds what an untrusted template can cost.
class Meter {
 public:
  Meter(std::uint64_t max_work, std::size_t max_bytes) : work_left_(max_work), max_bytes_(max_bytes) {}
  void work(std::uint64_t units) {
    if (units > work_left_) fail("the template takes too many steps");
    work_left_ -= units;
  }
  /// The size of one text, container or the output.
  void check(std::uint64_t size) const {
    if (size > max_bytes_) fail("the template makes a value that is too large");
  }
  /// The same, charged as work.
  void bytes(std::uint64_t size) {
    check(size);
    work(size + 16);
  }

 private:
  std::uint64_t work_left_;
  std::size_t max_bytes_;
};

struct Undefined {};
struct None {};
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                            std::shared_ptr<const Callable>, std::shared_ptr<const Loop>>;

  Value() = default;  ///< undefined
  template <class T>
  explicit Value(T data) : data_(std::move(data)) {}
  static Value text(std::string text) { return Value(std::make_shared<const std::string>(std::move(text))); }
  /// fail() for a number that is no int64 or double.
  static Value from_json(const nlohmann::ordered_json& json);

  bool is_undefined() const noexcept { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const noexcept { return std::holds_alternative<None>(data_); }
  const bool* boolean() const noexcept { return std::get_if<bool>(&data_); }
  const std::int64_t* integer() const noexcept { return std::get_if<std::int64_t>(&data_); }
  const double* real() const noexcept { return std::get_if<double>(&data_); }
  const std::string* string() const noexcept { return get<const std::string>(); }
  const List* list() const noexcept { return get<const List>(); }
  const Dict* dict() const noexcept { return get<const Dict>(); }
  Namespace* space() const noexcept { return get<Namespace>(); }
  const Callable* callable() const noexcept { return get<const Callable>(); }
  const Loop* loop() const noexcept { return get<const Loop>(); }

  /// bool and int as an integer (Python's True is 1).
  bool as_integer(std::int64_t& out) const noexcept;
  bool as_real(double& out) const noexcept;  ///< any number
  bool truth() const noexcept;
  int depth() const noexcept;             ///< 0 for scalars
  std::uint64_t weight() const noexcept;  ///< bytes of text plus one per value inside: what a walk over it costs
  const char* type_name() const noexcept;

 private:
  template <class T>
  T* get() const noexcept {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  Data data_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;  ///< only for how it is printed and compared
  int depth = 1;
  std::uint64_t weight = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  ///< in order of insertion
  int depth = 1;
  std::uint64_t weight = 1;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

struct Macro;  // ast.h
struct Scope;  // interpreter.h

/// A macro, a function of the environment, or a method with its receiver.
struct Callable {
  std::string name;
  Value receiver;
  const Macro* macro = nullptr;
  std::weak_ptr<Scope> scope;  ///< where the macro was defined
};

struct Loop {
  std::shared_ptr<const List> items;
  std::int64_t index0 = 0;
};

/// fail() when they nest too deeply, weigh too much, or hold a namespace or a loop.
Value make_list(Meter& meter, std::vector<Value> items, bool tuple = false);
/// Later items replace the values of earlier equal keys.
Value make_dict(Meter& meter, std::vector<std::pair<Value, Value>> items);
Value make_text(Meter& meter, std::string text);

bool equal(Meter& meter, const Value& a, const Value& b);
/// Negative, zero, positive; fail() where Python has no order.
int compare(Meter& meter, const Value& a, const Value& b);

/// Python's str(), repr(), and json.dumps().
std::string to_text(const Value& value);
std::string to_repr(const Value& value);
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  int indent = -1;  ///< -1: one line
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json_text(Meter& meter, const Value& value, const JsonStyle& style);

}  // namespace kedge::jinja
