#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace kedge {

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "kedge: internal error: %s does not hold (%s:%d); this is a bug of kedge, please report it\n",
               condition, file, line);
  std::abort();
}

}  // namespace kedge
