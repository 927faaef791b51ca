#include "cli/parse.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cli/recipe_file.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

struct Slot {
  const Flag* flag;
  CLI::Option* option;
  std::vector<std::string> values;
};

// "-n,--max-tokens"; a boolean that is on by default also has "--no-<name>".
std::string spelling(const Flag& flag) {
  std::string names = flag.short_name == 0 ? "" : std::string{'-', flag.short_name} + ",";
  names += std::string("--") + flag.name;
  if (flag.type == FlagType::boolean && std::string_view(flag.fallback) == "true") {
    names += std::string(",!--no-") + flag.name;
  }
  return names;
}

void add_flag(CLI::App& app, Slot& slot) {
  const Flag& flag = *slot.flag;
  if (flag.type == FlagType::boolean) {
    slot.option = app.add_flag(spelling(flag), slot.values);
    return;
  }
  slot.option = app.add_option(spelling(flag), slot.values);
  const bool repeats = flag.type == FlagType::list || flag.type == FlagType::paths;
  // Exactly one word each time, taken as it is, even where it begins with a dash; what follows is another argument.
  if (repeats) {
    slot.option->type_size(1)->expected(1, 1 << 20);
  } else {
    slot.option->type_size(1)->expected(1)->allow_extra_args(false);
    slot.option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
  return text;
}

// Values between ';' for flags that repeat.
std::vector<std::string> split_environment(const Flag& flag, const std::string& text) {
  if (flag.type != FlagType::list && flag.type != FlagType::paths) return {text};
  std::vector<std::string> values;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    if (end > begin) values.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return values;
}

void run_parser(CLI::App& app, const Command& command, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    throw;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::usage, one_line(error.what()), "",
                std::string("run \"kedge ") + command.name + " --help\" for what it takes");
  }
}

// What to do about an argument that is missing: a flag before it may have taken it.
std::string where_it_went(const Command& command, const std::vector<Slot>& slots) {
  for (const Slot& slot : slots) {
    if (slot.values.size() < 2 || slot.flag->type == FlagType::boolean) continue;
    return std::string("--") + slot.flag->name + " takes all words up to the next flag; put " +
           command.positionals.front().name + " before it";
  }
  return std::string("run \"kedge ") + command.name + " --help\" for what it takes";
}

}  // namespace

std::optional<Arguments> parse(const Command& command, const std::vector<std::string>& words) {
  CLI::App app{command.summary, std::string("kedge ") + command.name};
  std::vector<std::string> positionals(command.positionals.size());
  std::vector<CLI::Option*> positional_options;
  for (std::size_t i = 0; i < positionals.size(); ++i) {
    positional_options.push_back(app.add_option(command.positionals[i].name, positionals[i]));
  }
  std::vector<Slot> slots;
  for (const auto flags : {command.flags, command.common}) {
    for (const Flag& flag : flags) slots.push_back({&flag, nullptr, {}});
  }
  for (Slot& slot : slots) add_flag(app, slot);
  try {
    run_parser(app, command, words);
  } catch (const CLI::CallForHelp&) {
    return std::nullopt;
  }

  Arguments arguments(command);
  for (std::size_t i = 0; i < positionals.size(); ++i) {
    const Positional& positional = command.positionals[i];
    if (positional_options[i]->count() > 0) {
      arguments.set(positional, positionals[i]);
    } else if (positional.required) {
      throw Error(ErrorCode::usage, std::string(positional.name) + " is missing", "", where_it_went(command, slots));
    }
  }
  for (Slot& slot : slots) {
    if (slot.option->count() > 0) {
      arguments.set(*slot.flag, std::move(slot.values), std::string("--") + slot.flag->name);
      continue;
    }
    const std::string name = environment_name(*slot.flag);
    const char* value = std::getenv(name.c_str());
    if (value != nullptr && *value != 0) arguments.set(*slot.flag, split_environment(*slot.flag, value), name);
  }
  if (command.recipe_flag != nullptr && arguments.given(command.recipe_flag)) {
    read_recipe_file(arguments.text(command.recipe_flag), command.recipe_flag, arguments);
  }
  return arguments;
}

}  // namespace kedge::cli
