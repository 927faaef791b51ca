// Was this process started by mpirun as one of several?
#pragma once

#include <memory>

#include "cli/command.h"

namespace kedge::cli {

/// Null for one rank. Error(usage): several, and the command does not share its work; Error(not_found): no plugin.
std::unique_ptr<Communicator> started_ranks(const Command& command);

}  // namespace kedge::cli
