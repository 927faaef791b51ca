// Commands as data: the tables drive parsing, help, environment twins, completion and docs/cli.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kedge/options.h"

namespace kedge {
class Communicator;
}

namespace kedge::cli {

enum class FlagType {
  boolean,  ///< --name and, where the default is true, --no-name
  integer,
  number,
  text,
  path,
  list,   ///< text, may be given more than once; takes all words up to the next flag
  paths,  ///< the same for paths
};

struct Flag {
  const char* name;     ///< without dashes
  char short_name = 0;  ///< 0: none
  FlagType type = FlagType::text;
  const char* fallback = "";  ///< the default; empty: absent
  const char* help = "";
  const char* choices = "";     ///< "a|b|c"; empty: free
  const char* value_name = "";  ///< in help; empty: by type
  double minimum = std::numeric_limits<double>::lowest(), maximum = std::numeric_limits<double>::max();
};

struct Positional {
  const char* name;  ///< upper case
  const char* help;
  bool required = true;
  bool is_path = true;
  const char* choices = "";
};

/// What a command needs beside this binary.
enum class Needs { nothing, torch };

class Arguments;
struct TorchPart;  // cli/cli.h

struct Command {
  const char* name;
  const char* summary;  ///< one line, no full stop
  std::span<const Positional> positionals;
  std::span<const Flag> flags;   ///< its own
  std::span<const Flag> common;  ///< shared by the commands of its kind
  const char* example;
  int (*run)(const Arguments& arguments);
  const char* details = "";  ///< a paragraph for help and docs
  Needs (*needs_with)(const Arguments& arguments) = nullptr;  ///< null: nothing
  const char* recipe_flag = nullptr;  ///< names a file with more flags (cli/recipe_file.h)
  bool ranks = false;                 ///< shares its work where mpirun has started it (comm/communicator.h)
};

std::span<const Command* const> commands() noexcept;
/// nullptr when there is none.
const Command* find_command(std::string_view name) noexcept;

/// KEDGE_TOP_K for "top-k".
std::string environment_name(const Flag& flag);
/// "a|b|c" -> {a, b, c}.
std::vector<std::string> split_choices(std::string_view choices);
/// The value's name in help: "N", "X", "TEXT", "PATH" or the flag's own.
std::string value_name(const Flag& flag);

/// The values of one call, checked against the command's tables: from the command line, else the environment, else
/// a recipe file, else the table's default.
class Arguments {
 public:
  explicit Arguments(const Command& command) : command_(&command) {}

  const Command& command() const noexcept { return *command_; }
  bool given(std::string_view name) const;
  /// Not where the environment has it, whose variables are for all commands.
  bool on_command_line(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  std::string text(std::string_view name) const;  ///< empty when absent
  std::vector<std::string> list(std::string_view name) const;
  std::vector<std::filesystem::path> paths(std::string_view name) const;

  /// What kedge-torch has beyond kedge; null in kedge.
  const TorchPart* torch() const noexcept { return torch_; }
  void set_torch(const TorchPart* torch) noexcept { torch_ = torch; }

  /// Ranks to share the work with; null: none.
  Communicator* ranks() const noexcept { return ranks_; }
  bool is_root() const noexcept;  ///< the rank that prints
  void set_ranks(Communicator* ranks) noexcept { ranks_ = ranks; }

  /// Positionals under their names, flags under theirs. Error(usage) for a value that the table refuses.
  void set(const Positional& positional, std::string value);
  void set(const Flag& flag, std::vector<std::string> values, const std::string& spelling);

 private:
  const Command* command_;
  const TorchPart* torch_ = nullptr;
  Communicator* ranks_ = nullptr;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::set<std::string, std::less<>> on_command_line_;
};

/// The four fields that every command which runs a model has.
RuntimeOptions runtime_options(const Arguments& arguments);

/// What the commands that read texts share: files, cut into sequences.
constexpr Flag text_flag(const char* help) {
  return {.name = "text", .type = FlagType::paths, .help = help, .value_name = "FILE"};
}
constexpr Flag seqlen_flag(const char* help) {
  return {.name = "seqlen", .type = FlagType::integer, .fallback = "256", .help = help, .minimum = 2, .maximum = 1e9};
}
inline constexpr Flag kLimitFlag = {.name = "limit",
                                    .type = FlagType::integer,
                                    .fallback = "0",
                                    .help = "sequences at most; 0: all",
                                    .minimum = 0,
                                    .maximum = 1e12};

/// What the commands that compute share; kComputeFlags is for those that cannot explain.
inline constexpr Flag kRuntimeFlags[] = {
    {.name = "explain",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "say on stderr which kernel serves each weight, and why others were refused"},
    {.name = "threads",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "threads; 0: one per CPU that kedge may use",
     .minimum = 0,
     .maximum = 4096},
    {.name = "isa",
     .fallback = "auto",
     .help = "widest instruction set to use",
     .choices = "auto|scalar|avx2|avx512|avx512-vnni"},
    {.name = "numerics",
     .fallback = "consistent",
     .help = "consistent: the same bits on any ISA, thread count and batch; fast: may break that for speed",
     .choices = "consistent|fast"},
    {.name = "activations",
     .fallback = "fp32",
     .help = "what products with quantized weights read",
     .choices = "fp32|int8"},
    {.name = "json", .type = FlagType::boolean, .fallback = "false", .help = "print JSON on stdout"},
    {.name = "quiet",
     .short_name = 'q',
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "no notes and no progress on stderr; warnings and errors stay"},
};
inline constexpr std::span<const Flag> kComputeFlags = std::span<const Flag>(kRuntimeFlags).last<6>();
/// What the others share: --json and --quiet.
inline constexpr std::span<const Flag> kPlainFlags = std::span<const Flag>(kRuntimeFlags).last<2>();

}  // namespace kedge::cli
