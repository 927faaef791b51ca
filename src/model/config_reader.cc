#include "model/config_reader.h"

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

/// A value as an error shows it: short, whatever the file holds.
std::string show(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  constexpr std::size_t kLongest = 60;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

}  // namespace

ConfigReader::ConfigReader(const Json& config, std::string where) : config_(&config), where_(std::move(where)) {
  if (!config.is_object()) {
    throw Error(ErrorCode::bad_file, where_ + " holds " + std::string(config.type_name()), "a JSON object");
  }
}

void ConfigReader::fail(const char* key, const std::string& what, const std::string& expected) const {
  throw Error(ErrorCode::bad_file, fmt::format("'{}' in {} is {}", key, where_, what), expected);
}

void ConfigReader::unsupported(const char* key, const std::string& what, const std::string& expected) const {
  throw Error(ErrorCode::unsupported, fmt::format("'{}' in {} is {}", key, where_, what), expected);
}

bool ConfigReader::has(const char* key) const {
  const auto it = config_->find(key);
  return it != config_->end() && !it->is_null();
}

std::int64_t ConfigReader::checked_integer(const Json& value, const char* key, std::int64_t low,
                                           std::int64_t high) const {
  const std::string range = fmt::format("an integer from {} to {}", low, high);
  if (!value.is_number_integer()) fail(key, show(value), range);
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    fail(key, show(value), range);
  }
  const auto number = value.get<std::int64_t>();
  if (number < low || number > high) fail(key, show(value), range);
  return number;
}

std::int64_t ConfigReader::integer(const char* key, std::int64_t low, std::int64_t high) const {
  if (!has(key)) fail(key, "missing", fmt::format("an integer from {} to {}", low, high));
  return checked_integer((*config_)[key], key, low, high);
}

std::int64_t ConfigReader::integer_or(const char* key, std::int64_t fallback, std::int64_t low,
                                      std::int64_t high) const {
  return has(key) ? checked_integer((*config_)[key], key, low, high) : fallback;
}

double ConfigReader::number(const char* key, double low, double high) const {
  const std::string range = fmt::format("a number from {} to {}", low, high);
  if (!has(key)) fail(key, "missing", range);
  const Json& value = (*config_)[key];
  if (!value.is_number()) fail(key, show(value), range);
  const double number = value.get<double>();
  if (!(number >= low && number <= high)) fail(key, show(value), range);
  return number;
}

double ConfigReader::number_or(const char* key, double fallback, double low, double high) const {
  return has(key) ? number(key, low, high) : fallback;
}

bool ConfigReader::flag_or(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = (*config_)[key];
  if (!value.is_boolean()) fail(key, show(value), "true or false");
  return value.get<bool>();
}

std::string ConfigReader::text_or(const char* key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  const Json& value = (*config_)[key];
  if (!value.is_string()) fail(key, show(value), "a string");
  return value.get<std::string>();
}

std::optional<ConfigReader> ConfigReader::object(const char* key) const {
  if (!has(key)) return std::nullopt;
  const Json& value = (*config_)[key];
  if (!value.is_object()) fail(key, show(value), "an object");
  return ConfigReader(value, where_);
}

std::vector<std::int64_t> ConfigReader::integers_or_empty(const char* key, std::int64_t low, std::int64_t high) const {
  std::vector<std::int64_t> out;
  if (!has(key)) return out;
  const Json& value = (*config_)[key];
  if (!value.is_array()) fail(key, show(value), "a list of integers");
  for (const Json& item : value) out.push_back(checked_integer(item, key, low, high));
  return out;
}

bool ConfigReader::has_nested_objects() const {
  for (const auto& item : *config_) {
    if (item.is_object()) return true;
  }
  return false;
}

}  // namespace kedge
