// What this binary is.
#pragma once

namespace kedge {
const char* version() noexcept;   ///< "0.1.0"
const char* git_hash() noexcept;  ///< short hash, "-dirty" where the tree had changes, or "unknown" outside git
const char* build_type() noexcept;
}  // namespace kedge
