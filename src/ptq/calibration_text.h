// The text that calibrates when no other is named: models/calibration-text.txt, in the program itself, so that an
// installed binary needs no file for it. models/README.md states where it comes from.
#pragma once

#include <string_view>

namespace kedge {

std::string_view bundled_calibration_text() noexcept;  ///< UTF-8

}  // namespace kedge
