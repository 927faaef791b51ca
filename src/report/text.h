// Text for reports: UTF-8 decoding, escaping for HTML and SVG, numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kedge {

struct Utf8Char {
  std::uint32_t code = 0;  ///< U+FFFD for an invalid byte
  int bytes = 1;
  bool valid = true;
};
/// The first character of a text that is not empty. Overlong forms, surrogates and cut sequences are invalid.
Utf8Char next_utf8(std::string_view text) noexcept;

/// & < > " ' as entities; invalid bytes and control characters (but tab and newline) as U+FFFD.
std::string escape_html(std::string_view text);

/// Significant digits, plain notation between 1e-4 and 1e6: "0.0037", "102.4", "1.2e-07"; "n/a" for NaN.
std::string format_number(double value, int digits = 3);
/// Fixed decimals; "n/a" for NaN.
std::string format_fixed(double value, int decimals);
/// 0.0234 -> "2.34 %".
std::string format_percent(double share, int decimals = 2);
/// 8192 -> "8,192".
std::string format_count(std::int64_t value);

}  // namespace kedge
