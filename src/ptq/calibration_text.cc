#include "ptq/calibration_text.h"

// A string literal of this size costs the compiler seconds and meets its limits; the assembler copies the bytes.
// CMakeLists.txt gives the file's path and makes this object depend on it.
asm(".pushsection .rodata.kedge_calibration_text, \"a\", @progbits\n"
    ".hidden kedge_calibration_text_begin\n"
    ".global kedge_calibration_text_begin\n"
    "kedge_calibration_text_begin:\n"
    ".incbin \"" KEDGE_CALIBRATION_TEXT
    "\"\n"
    ".hidden kedge_calibration_text_end\n"
    ".global kedge_calibration_text_end\n"
    "kedge_calibration_text_end:\n"
    ".popsection\n");

extern "C" {
[[gnu::visibility("hidden")]] extern const char kedge_calibration_text_begin[];
[[gnu::visibility("hidden")]] extern const char kedge_calibration_text_end[];
}

namespace kedge {

std::string_view bundled_calibration_text() noexcept {
  return {kedge_calibration_text_begin, kedge_calibration_text_end};
}

}  // namespace kedge
