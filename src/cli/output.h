// stdout: data only, checked. A write that fails (disk full) is an error; a closed pipe ends the command quietly.
#pragma once

#include <string_view>

namespace kedge::cli {

/// The reader of stdout went away; not an error to talk about.
struct BrokenPipe {};

/// Buffered. Error(io) or BrokenPipe.
void print(std::string_view text);
void flush_output();

}  // namespace kedge::cli
