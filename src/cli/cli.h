// The program: argv in, exit code out (docs/exit-codes.md).
#pragma once

namespace kedge::cli {

int run(int argc, char** argv) noexcept;

}  // namespace kedge::cli
