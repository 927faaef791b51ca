#include "cli/result.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/interrupt.h"
#include "base/json.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "record/envelope.h"

namespace kedge::cli {

std::string result_json(std::string_view schema, const RuntimeOptions& runtime, int threads, Json config,
                        Json results) {
  const Provenance provenance = make_provenance(make_load_options(runtime), threads);
  return envelope_text(make_envelope(schema, provenance, std::move(config), std::move(results), Json::array()));
}

std::string read_stdin() {
  constexpr std::size_t kLimit = std::size_t{1} << 30;
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count == 0) return text;
    if (count < 0) {
      throw_if_interrupted();
      if (errno == EINTR) continue;
      throw Error(ErrorCode::io, std::string("reading stdin failed: ") + std::strerror(errno));
    }
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > kLimit) throw Error(ErrorCode::usage, "the text on stdin is too long", "at most 1 GiB");
  }
}

std::string megabytes(std::uint64_t bytes) { return fmt::format("{:.2f} MB", double(bytes) / 1e6); }

}  // namespace kedge::cli
