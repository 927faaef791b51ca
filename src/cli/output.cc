#include "cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "kedge/error.h"

namespace kedge::cli {
namespace {

[[noreturn]] void output_failed(int cause) {
  if (cause == EPIPE) throw BrokenPipe{};
  throw Error(ErrorCode::io, std::string("writing to stdout failed: ") + std::strerror(cause));
}

}  // namespace

void print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) output_failed(errno);
}

void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0) output_failed(errno);
}

}  // namespace kedge::cli
