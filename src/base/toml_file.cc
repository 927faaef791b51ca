#include "base/toml_file.h"

#include <fmt/format.h>

#include <sstream>
#include <string_view>

#include "kedge/error.h"

namespace kedge {
namespace {
struct BrokenAssumption {};
}  // namespace
}  // namespace kedge

// The parser asserts things that a malformed file can break ("[= x]"): the file's error, no end of the program.
#define TOML_ASSERT(expr) ((expr) ? void(0) : throw ::kedge::BrokenAssumption())
#define TOML_EXCEPTIONS 1
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wterminate"  // in its noexcept accessors, which end the program either way
#endif
#include <toml++/toml.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace kedge {
namespace {

TomlValue convert(const toml::node& node, const std::filesystem::path& file);

TomlValue convert_table(const toml::table& table, int line, const std::filesystem::path& file) {
  TomlTable out;
  for (const auto& [key, value] : table) {
    TomlValue member = convert(value, file);
    // A table's own place is that of its first member in some forms; the key's is where a reader looks.
    member.line = static_cast<int>(key.source().begin.line);
    out.push_back({std::string(key.str()), std::move(member)});
  }
  return {std::move(out), line};
}

TomlValue convert(const toml::node& node, const std::filesystem::path& file) {
  const int line = static_cast<int>(node.source().begin.line);
  switch (node.type()) {
    case toml::node_type::boolean: return {node.as_boolean()->get(), line};
    case toml::node_type::integer: return {node.as_integer()->get(), line};
    case toml::node_type::floating_point: return {node.as_floating_point()->get(), line};
    case toml::node_type::string: return {node.as_string()->get(), line};
    case toml::node_type::array: {
      TomlArray out;
      for (const toml::node& item : *node.as_array()) out.push_back(convert(item, file));
      return {std::move(out), line};
    }
    case toml::node_type::table: return convert_table(*node.as_table(), line, file);
    default:
      throw Error(ErrorCode::bad_file, fmt::format("{}:{}: dates and times have no use here", file.string(), line),
                  "a text, a number, true or false, an array or a table");
  }
}

}  // namespace

const char* TomlValue::type_name() const noexcept {
  constexpr const char* kNames[] = {"a boolean", "an integer", "a number", "a text", "an array", "a table"};
  return kNames[value.index()];
}

TomlValue parse_toml(const std::string& text, const std::filesystem::path& file) {
  try {
    return convert_table(toml::parse(std::string_view(text), std::string_view(file.string())), 1, file);
  } catch (const toml::parse_error& error) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}:{}: {}", file.string(), error.source().begin.line, std::string(error.description())),
                "TOML");
  } catch (const BrokenAssumption&) {
    throw Error(ErrorCode::bad_file, file.string() + ": a key, a value or a bracket stands where none can", "TOML");
  }
}

}  // namespace kedge
