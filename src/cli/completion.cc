// Completion scripts for bash, zsh and fish, printed from the commands' tables.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/output.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"SHELL", "bash, zsh or fish", true, false, "bash|zsh|fish"}};

bool takes_path(const Flag& flag) { return flag.type == FlagType::path || flag.type == FlagType::paths; }

bool has_no_form(const Flag& flag) {
  return flag.type == FlagType::boolean && std::string_view(flag.fallback) == "true";
}

template <class F>
void for_each_flag(const Command& command, F&& f) {
  for (const auto flags : {command.flags, command.common}) {
    for (const Flag& flag : flags) f(flag);
  }
}

std::string command_names() {
  std::string names;
  for (const Command* command : commands()) names += (names.empty() ? "" : " ") + std::string(command->name);
  return names;
}

std::string words(std::string_view choices) {
  std::string out;
  for (const std::string& choice : split_choices(choices)) out += (out.empty() ? "" : " ") + choice;
  return out;
}

// What the first positional with choices of its own offers, else files.
std::string positional_choices(const Command& command) {
  for (const Positional& positional : command.positionals) {
    if (*positional.choices != 0) return words(positional.choices);
  }
  return std::string_view(command.name) == "help" ? command_names() + " markdown" : "";
}

// Text inside single quotes of a shell.
std::string shell_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_script() {
  std::string out =
      "# bash completion for kedge; printed by `kedge completion bash`.\n_kedge() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"" +
      command_names() +
      " --help --version\" -- \"$cur\"))\n"
      "    return\n  fi\n  case \"${COMP_WORDS[1]}:$prev\" in\n";
  for (const Command* command : commands()) {
    for_each_flag(*command, [&](const Flag& flag) {
      if (flag.type == FlagType::boolean) return;
      std::string pattern = fmt::format("{}:--{}", command->name, flag.name);
      if (flag.short_name != 0) pattern += fmt::format("|{}:-{}", command->name, flag.short_name);
      if (takes_path(flag)) {
        out += fmt::format("    {}) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", pattern);
      } else {
        out += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")); return ;;\n", pattern,
                           words(flag.choices));
      }
    });
  }
  out += "  esac\n  if [[ $cur == -* ]]; then\n    case \"${COMP_WORDS[1]}\" in\n";
  for (const Command* command : commands()) {
    std::string flags = "--help";
    for_each_flag(*command, [&](const Flag& flag) {
      flags += std::string(" --") + flag.name;
      if (has_no_form(flag)) flags += std::string(" --no-") + flag.name;
    });
    out += fmt::format("      {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", command->name, flags);
  }
  out += "    esac\n    return\n  fi\n  case \"${COMP_WORDS[1]}\" in\n";
  for (const Command* command : commands()) {
    const std::string choices = positional_choices(*command);
    if (choices.empty()) continue;
    out += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n", command->name, choices);
  }
  return out + "    *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n  esac\n}\ncomplete -o filenames -F _kedge kedge\n";
}

// Inside a zsh _arguments specification brackets and colons have a meaning.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_flag(const Flag& flag, const std::string& name) {
  std::string spec = name + "[" + zsh_text(flag.help) + "]";
  if (flag.type == FlagType::list || flag.type == FlagType::paths) spec = "*" + spec;
  if (flag.type == FlagType::boolean) return shell_quoted(spec);
  spec += ":" + zsh_text(*flag.value_name != 0 ? flag.value_name : flag.name) + ":";
  if (takes_path(flag)) spec += "_files";
  if (*flag.choices != 0) spec += "(" + words(flag.choices) + ")";
  return shell_quoted(spec);
}

std::string zsh_script() {
  std::string out =
      "#compdef kedge\n# zsh completion for kedge; printed by `kedge completion zsh`.\n_kedge() {\n"
      "  if (( CURRENT == 2 )); then\n    local -a list=(\n";
  for (const Command* command : commands()) {
    out += "      " + shell_quoted(zsh_text(command->name) + ":" + command->summary) + "\n";
  }
  out +=
      "    )\n    _describe command list\n    return\n  fi\n  local command=$words[2]\n  shift words\n"
      "  (( CURRENT-- ))\n  case $command in\n";
  for (const Command* command : commands()) {
    out += std::string("    ") + command->name + ")\n      _arguments";
    for_each_flag(*command, [&](const Flag& flag) {
      out += " \\\n        " + zsh_flag(flag, std::string("--") + flag.name);
      if (flag.short_name != 0) out += " \\\n        " + zsh_flag(flag, std::string{'-', flag.short_name});
      if (has_no_form(flag)) out += " \\\n        " + zsh_flag(flag, std::string("--no-") + flag.name);
    });
    const std::string choices = positional_choices(*command);
    out += " \\\n        " + shell_quoted("*:argument:" + (choices.empty() ? "_files" : "(" + choices + ")")) +
           "\n      ;;\n";
  }
  return out + "  esac\n}\ncompdef _kedge kedge\n";
}

std::string fish_script() {
  std::string out = "# fish completion for kedge; printed by `kedge completion fish`.\n";
  for (const Command* command : commands()) {
    out += fmt::format("complete -c kedge -f -n __fish_use_subcommand -a {} -d {}\n", command->name,
                       shell_quoted(command->summary));
  }
  for (const Command* command : commands()) {
    const std::string when = fmt::format("complete -c kedge -n '__fish_seen_subcommand_from {}'", command->name);
    for_each_flag(*command, [&](const Flag& flag) {
      std::string line = when + " -l " + flag.name;
      if (flag.short_name != 0) line += fmt::format(" -s {}", flag.short_name);
      if (takes_path(flag))
        line += " -r -F";
      else if (*flag.choices != 0)
        line += " -x -a " + shell_quoted(words(flag.choices));
      else if (flag.type != FlagType::boolean)
        line += " -x";
      out += line + " -d " + shell_quoted(flag.help) + "\n";
      if (has_no_form(flag)) out += when + " -l no-" + flag.name + " -d " + shell_quoted(flag.help) + "\n";
    });
    const std::string choices = positional_choices(*command);
    if (!choices.empty()) out += when + " -f -a " + shell_quoted(choices) + "\n";
  }
  return out;
}

int run_completion(const Arguments& arguments) {
  const std::string shell = arguments.text("SHELL");
  print(shell == "bash" ? bash_script() : shell == "zsh" ? zsh_script() : fish_script());
  return 0;
}

}  // namespace

constinit const Command completion_command{.name = "completion",
                                           .summary = "Print a completion script for bash, zsh or fish",
                                           .positionals = kPositionals,
                                           .flags = {},
                                           .common = {},
                                           .example = "source <(kedge completion bash)",
                                           .run = run_completion};

}  // namespace kedge::cli
