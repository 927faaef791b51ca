// Help and docs/cli.md, both from the tables.
#pragma once

#include <string>

#include "cli/command.h"

namespace kedge::cli {

std::string help_overview();
std::string help_for(const Command& command);
std::string help_markdown();  ///< docs/cli.md

}  // namespace kedge::cli
