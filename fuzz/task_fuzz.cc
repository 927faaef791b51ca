// A task's TOML (kedge eval) on arbitrary bytes: accepted or Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "eval/task.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    kedge::parse_task({reinterpret_cast<const char*>(data), size}, "fuzz.toml", "");
  } catch (const kedge::Error&) {
  }
  return 0;
}
