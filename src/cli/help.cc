#include "cli/help.h"

#include <algorithm>

#include <fmt/format.h>

namespace kedge::cli {
namespace {

constexpr std::size_t kWidth = 100;

std::string usage_line(const Command& command) {
  std::string line = std::string("kedge ") + command.name;
  for (const Positional& positional : command.positionals) {
    line += positional.required ? std::string(" ") + positional.name : std::string(" [") + positional.name + "]";
  }
  return line + " [FLAGS]";
}

std::string flag_names(const Flag& flag) {
  std::string names = flag.short_name == 0 ? "" : std::string{'-', flag.short_name} + ", ";
  names += std::string("--") + flag.name;
  if (flag.type == FlagType::boolean && std::string_view(flag.fallback) == "true") {
    names += std::string(", --no-") + flag.name;
  }
  const std::string value = value_name(flag);
  if (!value.empty()) names += " " + value;
  if (flag.type == FlagType::list || flag.type == FlagType::paths) names += "...";
  return names;
}

std::string default_text(const Flag& flag) {
  if (flag.type == FlagType::boolean) return std::string_view(flag.fallback) == "true" ? "on" : "";
  return flag.fallback;
}

// Words wrapped at kWidth, continued at column `indent`.
std::string wrapped(std::string_view text, std::size_t column, std::size_t indent) {
  std::string out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (column > indent && column + end + 1 > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += text.substr(0, end);
    column += end;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string flag_lines(const Flag& flag) {
  constexpr std::size_t kIndent = 28;
  std::string names = "  " + std::string(flag.short_name == 0 ? "    " : "") + flag_names(flag);
  names += names.size() + 2 > kIndent ? "\n" + std::string(kIndent, ' ') : std::string(kIndent - names.size(), ' ');
  std::string help = flag.help;
  if (const std::string fallback = default_text(flag); !fallback.empty()) help += " [" + fallback + "]";
  return names + wrapped(help, kIndent, kIndent) + "\n";
}

std::string escaped(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string names_of(std::span<const Flag> flags) {
  std::string names;
  for (const Flag& flag : flags) names += fmt::format("{}`--{}`", names.empty() ? "" : ", ", flag.name);
  return names;
}

void append_table(std::string& out, std::span<const Flag> flags) {
  out += "\n| flag | default | environment | |\n|---|---|---|---|\n";
  for (const Flag& flag : flags) {
    const std::string fallback = default_text(flag);
    out += fmt::format("| `{}` | {} | `{}` | {} |\n", escaped(flag_names(flag)),
                       fallback.empty() ? "" : "`" + fallback + "`", environment_name(flag), escaped(flag.help));
  }
}

}  // namespace

std::string help_overview() {
  std::string out =
      "kedge quantizes, audits and runs sparse Mixture-of-Experts models.\n\n"
      "  kedge COMMAND [ARGUMENTS] [FLAGS]\n\nCommands:\n";
  for (const Command* command : commands()) out += fmt::format("  {:<12}{}\n", command->name, command->summary);
  out +=
      "\nFlags:\n  --help      this text; \"kedge COMMAND --help\" for one command\n"
      "  --version   version, git hash, build and instruction set\n\n"
      "Each flag of a command has an environment twin: --top-k is KEDGE_TOP_K. The command line wins.\n";
  return out;
}

std::string help_for(const Command& command) {
  std::string out = std::string(command.summary) + ".\n\n  " + usage_line(command) + "\n";
  if (*command.details != 0) out += "\n" + wrapped(command.details, 0, 0) + "\n";
  if (!command.positionals.empty()) out += "\nArguments:\n";
  for (const Positional& positional : command.positionals) {
    out += fmt::format("  {:<26}{}\n", positional.name, wrapped(positional.help, 28, 28));
  }
  if (!command.flags.empty()) out += "\nFlags:\n";
  for (const Flag& flag : command.flags) out += flag_lines(flag);
  if (!command.common.empty()) out += "\nCommon flags:\n";
  for (const Flag& flag : command.common) out += flag_lines(flag);
  return out + "\nExample: " + command.example + "\n";
}

std::string help_markdown() {
  std::string out =
      "# The command line\n\n"
      "Printed by `kedge help markdown` from the commands' tables; a test keeps this page equal to it.\n\n"
      "stdout is data, stderr is talk. Exit codes: [exit-codes.md](exit-codes.md). Each flag has an environment twin "
      "(`--top-k` is `KEDGE_TOP_K`; flags that repeat take values between `;`); the command line wins.\n\n"
      "| command | |\n|---|---|\n";
  for (const Command* command : commands()) {
    out += fmt::format("| [`{0}`](#kedge-{0}) | {1} |\n", command->name, command->summary);
  }
  for (const Command* entry : commands()) {
    const Command& command = *entry;
    out += fmt::format("\n## kedge {}\n\n{}.\n\n```\n{}\n```\n", command.name, command.summary, usage_line(command));
    if (*command.details != 0) out += std::string("\n") + command.details + "\n";
    if (!command.positionals.empty()) out += "\n| argument | |\n|---|---|\n";
    for (const Positional& positional : command.positionals) {
      out += fmt::format("| `{}` | {} |\n", positional.name, escaped(positional.help));
    }
    if (!command.flags.empty()) append_table(out, command.flags);
    if (!command.common.empty())
      out += "\nAnd of the [common flags](#common-flags): " + names_of(command.common) + ".\n";
    out += fmt::format("\nExample: `{}`\n", command.example);
  }
  out += "\n## Common flags\n";
  append_table(out, kRuntimeFlags);
  return out;
}

}  // namespace kedge::cli
