// argv and the environment -> Arguments. CLI11 is behind this header and nowhere else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"

namespace kedge::cli {

/// words: what follows the command's name. nullopt: --help was asked for. Error(usage).
std::optional<Arguments> parse(const Command& command, const std::vector<std::string>& words);

}  // namespace kedge::cli
