// CHECK: a broken invariant of kedge itself. Prints the place and aborts; never used for user input.
#pragma once

namespace kedge {
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;
}  // namespace kedge

#define KEDGE_CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::kedge::check_failed(#condition, __FILE__, __LINE__))
