// A recipe file: a command's flags as the keys of a TOML table, so that a run can be kept and done again.
#pragma once

#include <filesystem>

#include "cli/command.h"

namespace kedge::cli {

/// Values for the flags of `arguments`' command that have none yet. Keys are flags without dashes (those of `own` alone,
/// less `own_name`, the flag that named the file); relative paths start at the file's folder.
/// Error: not_found, bad_file ("FILE:LINE: ..."; a key that is no flag, a value of the wrong type), usage (a value that
/// the flag's table refuses).
void read_recipe_file(const std::filesystem::path& file, const char* own_name, Arguments& arguments);

}  // namespace kedge::cli
