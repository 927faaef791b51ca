#include "cli/recipe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/toml_section.h"

namespace kedge::cli {
namespace {

constexpr std::uint64_t kMaxBytes = 1 << 20;

// "auto|on|off" is a boolean with a third value.
bool is_switch(const Flag& flag) {
  const std::vector<std::string> choices = split_choices(flag.choices);
  return std::find(choices.begin(), choices.end(), "on") != choices.end();
}

std::string word(const TomlSection& section, const Flag& flag, const TomlValue& value) {
  switch (flag.type) {
    case FlagType::boolean: return section.as<bool>(flag.name, value, "true or false") ? "true" : "false";
    case FlagType::integer: return fmt::format("{}", section.as<std::int64_t>(flag.name, value, "an integer"));
    case FlagType::number: return fmt::format("{}", section.as<double>(flag.name, value, "a number"));
    case FlagType::path:
      return (section.file().parent_path() / section.as<std::string>(flag.name, value, "a path")).lexically_normal().string();
    case FlagType::text:
    case FlagType::list:
    case FlagType::paths: break;
  }
  const bool* boolean = std::get_if<bool>(&value.value);
  if (boolean != nullptr && is_switch(flag)) return *boolean ? "on" : "off";
  return section.as<std::string>(flag.name, value, "a text");
}

std::vector<std::string> words(const TomlSection& section, const Flag& flag, const TomlValue& value) {
  if (flag.type == FlagType::list) return section.texts(flag.name, value);
  if (flag.type != FlagType::paths) return {word(section, flag, value)};
  std::vector<std::string> out;
  for (const std::filesystem::path& path : section.paths(flag.name, value)) out.push_back(path.string());
  return out;
}

}  // namespace

void read_recipe_file(const std::filesystem::path& file, const char* own_name, Arguments& arguments) {
  const TomlValue root = parse_toml(read_file(file, kMaxBytes), file);
  TomlSection section(file, "the recipe", root);
  for (const Flag& flag : arguments.command().flags) {
    if (std::string_view(flag.name) == own_name) continue;
    const TomlValue* value = section.find(flag.name);
    if (value == nullptr || arguments.given(flag.name)) continue;
    arguments.set(flag, words(section, flag, *value), fmt::format("{}:{}: \"{}\"", file.string(), value->line, flag.name));
  }
  section.refuse_others();
}

}  // namespace kedge::cli
