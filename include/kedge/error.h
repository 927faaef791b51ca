// Errors that a user or a file can cause, and the exit codes they map to.
//
// An Error reads as one sentence: what happened, what was expected, what to do.
// Bugs of kedge itself use CHECK (src/base/check.h), never Error.
#pragma once

#include <stdexcept>
#include <string>

namespace kedge {

/// Each value is the process's exit code (docs/exit-codes.md).
enum class ErrorCode : int {
  usage = 2,        ///< a flag or argument is wrong
  not_found = 3,    ///< a file, folder or tensor is missing
  bad_file = 4,     ///< a file is damaged or breaks its format
  unsupported = 5,  ///< well-formed, but kedge has no support for it
  mismatch = 6,     ///< two inputs that must agree do not
  io = 7,           ///< reading or writing failed (disk full, permission)
  exists = 8,       ///< the destination exists
  interrupted = 130,
};

class Error : public std::runtime_error {
 public:
  /// what_happened: a clause without a final full stop. expected, to_do: may be empty.
  Error(ErrorCode code, const std::string& what_happened, const std::string& expected = {},
        const std::string& to_do = {});
  ErrorCode code() const noexcept { return code_; }
  int exit_code() const noexcept { return static_cast<int>(code_); }

 private:
  ErrorCode code_;
};

}  // namespace kedge
