// One table of a TOML file, read key by key: what is missing, of a wrong type or unknown is an Error(bad_file)
// "FILE:LINE: ...".
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/toml_file.h"
#include "kedge/error.h"

namespace kedge {

/// Remembers which keys were asked for, so that the others are errors.
class TomlSection {
 public:
  TomlSection(const std::filesystem::path& file, std::string name, const TomlValue& table)
      : file_(file), name_(std::move(name)) {
    line_ = table.line;
    members_ = std::get_if<TomlTable>(&table.value);
    if (members_ == nullptr) fail(table.line, fmt::format("{} is {}", name_, table.type_name()), "a table");
  }

  [[noreturn]] void fail(int line, const std::string& what, const std::string& expected = {},
                         const std::string& to_do = {}, ErrorCode code = ErrorCode::bad_file) const {
    throw Error(code, fmt::format("{}:{}: {}", file_.string(), line, what), expected, to_do);
  }

  const std::filesystem::path& file() const noexcept { return file_; }
  int line() const noexcept { return line_; }
  const TomlTable& members() const noexcept { return *members_; }

  const TomlValue* find(const std::string& key) {
    known_.push_back(key);
    for (const auto& [name, value] : *members_) {
      if (name == key) return &value;
    }
    return nullptr;
  }

  const TomlValue& require(const std::string& key, const char* what) {
    const TomlValue* value = find(key);
    if (value == nullptr) fail(line_, fmt::format("{} has no \"{}\"", name_, key), what);
    return *value;
  }

  /// expected: "a text".
  template <class T>
  T as(const std::string& key, const TomlValue& value, const char* expected) const {
    if constexpr (std::is_same_v<T, double>) {
      if (const auto* integer = std::get_if<std::int64_t>(&value.value)) return static_cast<double>(*integer);
    }
    const T* out = std::get_if<T>(&value.value);
    if (out == nullptr) fail(value.line, fmt::format("\"{}\" is {}", key, value.type_name()), expected);
    if constexpr (std::is_same_v<T, double>) {
      if (!std::isfinite(*out)) fail(value.line, fmt::format("\"{}\" is not finite", key), expected);
    }
    return *out;
  }

  std::int64_t integer(const std::string& key, std::int64_t fallback, std::int64_t minimum) {
    const TomlValue* value = find(key);
    if (value == nullptr) return fallback;
    const auto out = as<std::int64_t>(key, *value, "an integer");
    if (out < minimum) fail(value->line, fmt::format("\"{}\" is {}", key, out), fmt::format("{} or more", minimum));
    return out;
  }

  bool boolean(const std::string& key, bool fallback) {
    const TomlValue* value = find(key);
    return value == nullptr ? fallback : as<bool>(key, *value, "true or false");
  }

  std::string text(const std::string& key, std::string fallback) {
    const TomlValue* value = find(key);
    return value == nullptr ? fallback : as<std::string>(key, *value, "a text");
  }

  /// A list without empty or repeated texts.
  std::vector<std::string> texts(const std::string& key, const TomlValue& value) const {
    std::vector<std::string> out;
    for (const TomlValue& item : as<TomlArray>(key, value, "a list of texts")) {
      const std::string text = as<std::string>(key, item, "a list of texts");
      if (text.empty()) fail(item.line, fmt::format("\"{}\" holds an empty text", key));
      if (std::find(out.begin(), out.end(), text) != out.end()) {
        fail(item.line, fmt::format("\"{}\" names \"{}\" twice", key, text), "each one once");
      }
      out.push_back(text);
    }
    return out;
  }

  /// Taken from the file's folder; each must be there.
  std::vector<std::filesystem::path> paths(const std::string& key, const TomlValue& value) const {
    std::vector<std::filesystem::path> out;
    for (const std::string& text : texts(key, value)) {
      const std::filesystem::path path = (file_.parent_path() / text).lexically_normal();
      std::error_code ignored;
      if (!std::filesystem::exists(path, ignored)) {
        fail(value.line, fmt::format("\"{}\" names {}, which is not there", key, path.string()),
             "a path from the file's folder", {}, ErrorCode::not_found);
      }
      out.push_back(path);
    }
    return out;
  }

  /// Once all keys were asked for.
  void refuse_others() const {
    for (const auto& [name, value] : *members_) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      std::string known;
      for (const std::string& key : known_) known += (known.empty() ? "" : ", ") + key;
      fail(value.line, fmt::format("{} has no key \"{}\"", name_, name), "one of " + known);
    }
  }

 private:
  const std::filesystem::path& file_;
  std::string name_;
  int line_ = 0;
  const TomlTable* members_ = nullptr;
  std::vector<std::string> known_;
};

}  // namespace kedge
