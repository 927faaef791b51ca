#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "cli/command.h"
#include "comm/communicator.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

bool parse_bool(const std::string& text, bool& value) {
  std::string lower;
  for (char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  value = lower == "1" || lower == "true" || lower == "yes" || lower == "on";
  return value || lower == "0" || lower == "false" || lower == "no" || lower == "off";
}

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::string plain(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

std::string range_text(const Flag& flag, const char* what) {
  const bool low = flag.minimum != std::numeric_limits<double>::lowest();
  const bool high = flag.maximum != std::numeric_limits<double>::max();
  if (low && high) return fmt::format("{} from {} to {}", what, plain(flag.minimum), plain(flag.maximum));
  if (low) return fmt::format("{} of at least {}", what, plain(flag.minimum));
  return what;
}

[[noreturn]] void refuse(const std::string& spelling, const std::string& value, const std::string& expected) {
  throw Error(ErrorCode::usage, spelling + " is \"" + value + "\"", expected);
}

void check_choice(const std::string& spelling, const char* choices, const std::string& value) {
  const std::vector<std::string> allowed = split_choices(choices);
  if (allowed.empty() || std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (const std::string& choice : allowed) list += (list.empty() ? "" : ", ") + choice;
  refuse(spelling, value, "one of " + list);
}

void check_value(const Flag& flag, const std::string& value, const std::string& spelling) {
  switch (flag.type) {
    case FlagType::boolean: {
      bool parsed = false;
      if (!parse_bool(value, parsed)) refuse(spelling, value, "true or false");
      return;
    }
    case FlagType::integer: {
      std::int64_t parsed = 0;
      if (!parse_whole(value, parsed) || double(parsed) < flag.minimum || double(parsed) > flag.maximum) {
        refuse(spelling, value, range_text(flag, "a whole number"));
      }
      return;
    }
    case FlagType::number: {
      double parsed = 0;
      if (!parse_whole(value, parsed) || !std::isfinite(parsed) || parsed < flag.minimum || parsed > flag.maximum) {
        refuse(spelling, value, range_text(flag, "a number"));
      }
      return;
    }
    case FlagType::path:
    case FlagType::paths:
      if (value.empty()) refuse(spelling, value, "a path");
      return;
    case FlagType::text:
    case FlagType::list: check_choice(spelling, flag.choices, value);
  }
}

}  // namespace

std::string environment_name(const Flag& flag) {
  std::string name = "KEDGE_";
  for (const char* c = flag.name; *c != 0; ++c) {
    name += *c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(*c)));
  }
  return name;
}

std::vector<std::string> split_choices(std::string_view choices) {
  std::vector<std::string> out;
  while (!choices.empty()) {
    const std::size_t end = std::min(choices.find('|'), choices.size());
    out.emplace_back(choices.substr(0, end));
    choices.remove_prefix(std::min(end + 1, choices.size()));
  }
  return out;
}

std::string value_name(const Flag& flag) {
  if (*flag.value_name != 0) return flag.value_name;
  if (*flag.choices != 0) return flag.choices;
  switch (flag.type) {
    case FlagType::boolean: return "";
    case FlagType::integer: return "N";
    case FlagType::number: return "X";
    case FlagType::text:
    case FlagType::list: return "TEXT";
    case FlagType::path:
    case FlagType::paths: return "PATH";
  }
  return "";
}

bool Arguments::is_root() const noexcept { return ranks_ == nullptr || ranks_->is_root(); }

bool Arguments::given(std::string_view name) const { return values_.contains(name); }

bool Arguments::on_command_line(std::string_view name) const { return on_command_line_.contains(name); }

bool Arguments::flag(std::string_view name) const {
  bool value = false;
  KEDGE_CHECK(parse_bool(text(name), value));
  return value;
}

std::int64_t Arguments::integer(std::string_view name) const {
  std::int64_t value = 0;
  KEDGE_CHECK(parse_whole(text(name), value));
  return value;
}

double Arguments::number(std::string_view name) const {
  double value = 0;
  KEDGE_CHECK(parse_whole(text(name), value));
  return value;
}

std::string Arguments::text(std::string_view name) const {
  if (const auto at = values_.find(name); at != values_.end()) return at->second.empty() ? "" : at->second.back();
  for (const auto flags : {command_->flags, command_->common}) {
    for (const Flag& flag : flags) {
      if (name == flag.name) return flag.fallback;
    }
  }
  for (const Positional& positional : command_->positionals) {
    if (name == positional.name) return "";
  }
  KEDGE_CHECK(!"a name that the command's tables do not have");
  return "";
}

std::vector<std::string> Arguments::list(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? std::vector<std::string>{} : at->second;
}

std::vector<std::filesystem::path> Arguments::paths(std::string_view name) const {
  const std::vector<std::string> values = list(name);
  return {values.begin(), values.end()};
}

void Arguments::set(const Positional& positional, std::string value) {
  if (positional.is_path && value.empty()) refuse(positional.name, value, "a path");
  check_choice(positional.name, positional.choices, value);
  values_[positional.name] = {std::move(value)};
}

void Arguments::set(const Flag& flag, std::vector<std::string> values, const std::string& spelling) {
  for (const std::string& value : values) check_value(flag, value, spelling);
  const bool repeats = flag.type == FlagType::list || flag.type == FlagType::paths;
  if (!repeats && values.size() > 1) throw Error(ErrorCode::usage, spelling + " is given more than once");
  values_[flag.name] = std::move(values);
  if (spelling == std::string("--") + flag.name) on_command_line_.insert(flag.name);
}

RuntimeOptions runtime_options(const Arguments& arguments) {
  RuntimeOptions options;
  options.threads = static_cast<int>(arguments.integer("threads"));
  options.isa = arguments.text("isa");
  options.numerics = arguments.text("numerics");
  options.activations = arguments.text("activations");
  return options;
}

}  // namespace kedge::cli
