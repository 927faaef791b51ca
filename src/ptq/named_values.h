// Words of recipes and the values that they stand for: a table of pairs, read in either direction.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "kedge/error.h"

namespace kedge {

/// Empty when the table has no such value.
template <class T, std::size_t N>
const char* name_in(const std::pair<const char*, T> (&rows)[N], T value) noexcept {
  for (const auto& [name, row] : rows) {
    if (row == value) return name;
  }
  return "";
}

/// Error(usage) says that there is no such `what`, and lists the names.
template <class T, std::size_t N>
T value_in(const std::pair<const char*, T> (&rows)[N], std::string_view name, const char* what) {
  std::string known;
  for (const auto& [row, value] : rows) {
    if (name == row) return value;
    known += (known.empty() ? "" : ", ") + std::string(row);
  }
  throw Error(ErrorCode::usage, "there is no " + std::string(what) + " \"" + std::string(name) + "\"",
              "one of " + known);
}

}  // namespace kedge
