// TOML files as values with the lines that they stand in. toml++ is behind this header and nowhere else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

namespace kedge {

struct TomlValue;
struct TomlEntry;
using TomlArray = std::vector<TomlValue>;
using TomlTable = std::vector<TomlEntry>;

struct TomlValue {
  std::variant<bool, std::int64_t, double, std::string, TomlArray, TomlTable> value;
  int line = 0;  ///< from 1

  const char* type_name() const noexcept;  ///< "a boolean", "an integer", "a number", "a text", "an array", "a table"
};

struct TomlEntry {
  std::string key;
  TomlValue value;
};

/// The text of a TOML file (version 1.0). Error(bad_file): "FILE:LINE: ..."; dates and times are refused.
TomlValue parse_toml(const std::string& text, const std::filesystem::path& file);

}  // namespace kedge
