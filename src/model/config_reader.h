// config.json, read with suspicion: each value has a type and a range, and an error names the key and the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace kedge {

class ConfigReader {
 public:
  /// `where` names the file in errors. Error(bad_file) unless config is an object. config must outlive the reader.
  ConfigReader(const nlohmann::ordered_json& config, std::string where);

  /// There and not null.
  bool has(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  std::int64_t integer_or(const char* key, std::int64_t fallback, std::int64_t low, std::int64_t high) const;
  double number(const char* key, double low, double high) const;
  double number_or(const char* key, double fallback, double low, double high) const;
  bool flag_or(const char* key, bool fallback) const;
  std::string text_or(const char* key, const std::string& fallback) const;
  /// An object below this one; nullopt when missing or null.
  std::optional<ConfigReader> object(const char* key) const;
  /// A list of integers; empty when missing or null.
  std::vector<std::int64_t> integers_or_empty(const char* key, std::int64_t low, std::int64_t high) const;
  /// Is any value below an object itself an object?
  bool has_nested_objects() const;

  const std::string& where() const noexcept { return where_; }
  /// Error(bad_file): "'key' in WHERE is <what>", expected.
  [[noreturn]] void fail(const char* key, const std::string& what, const std::string& expected) const;
  /// Error(unsupported) in the same form.
  [[noreturn]] void unsupported(const char* key, const std::string& what, const std::string& expected) const;

 private:
  std::int64_t checked_integer(const nlohmann::ordered_json& value, const char* key, std::int64_t low,
                               std::int64_t high) const;

  const nlohmann::ordered_json* config_;
  std::string where_;
};

}  // namespace kedge
