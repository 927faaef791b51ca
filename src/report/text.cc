#include "report/text.h"

#include <fmt/format.h>

#include <cmath>

namespace kedge {

Utf8Char next_utf8(std::string_view text) noexcept {
  const Utf8Char invalid{0xfffd, 1, false};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (text.empty()) return invalid;
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {first, 1, true};
  const int bytes = first >= 0xf0 && first < 0xf5   ? 4
                    : first >= 0xe0 && first < 0xf0 ? 3
                    : first >= 0xc2 && first < 0xe0 ? 2
                                                    : 0;
  if (bytes == 0 || text.size() < static_cast<std::size_t>(bytes)) return invalid;
  std::uint32_t code = first & (0x7fu >> bytes);
  for (int i = 1; i < bytes; ++i) {
    const std::uint32_t next = byte(static_cast<std::size_t>(i));
    if ((next & 0xc0) != 0x80) return invalid;
    code = (code << 6) | (next & 0x3f);
  }
  const bool overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  if (overlong || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return invalid;
  return {code, bytes, true};
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = next_utf8(text);
    const std::string_view raw = text.substr(0, static_cast<std::size_t>(c.bytes));
    text.remove_prefix(raw.size());
    switch (c.code) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: {
        const bool control = (c.code < 0x20 && c.code != '\n' && c.code != '\t') || (c.code >= 0x7f && c.code < 0xa0);
        out += c.valid && !control ? raw : std::string_view("\xef\xbf\xbd");
      }
    }
  }
  return out;
}

std::string format_number(double value, int digits) {
  if (std::isnan(value)) return "n/a";
  if (std::isinf(value)) return value > 0 ? "∞" : "−∞";
  if (value == 0) return "0";
  const double magnitude = std::fabs(value);
  if (magnitude < 1e-4 || magnitude >= 1e6) return fmt::format("{:.{}e}", value, digits - 1);
  const int integer_digits = static_cast<int>(std::floor(std::log10(magnitude))) + 1;
  return fmt::format("{:.{}f}", value, std::max(0, digits - integer_digits));
}

std::string format_fixed(double value, int decimals) {
  return std::isnan(value) ? "n/a" : fmt::format("{:.{}f}", value, decimals);
}

std::string format_percent(double share, int decimals) {
  return std::isnan(share) ? "n/a" : fmt::format("{:.{}f} %", 100 * share, decimals);
}

std::string format_count(std::int64_t value) {
  std::string digits = std::to_string(value);
  const std::size_t stop = value < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > stop + 3;) digits.insert(i -= 3, ",");
  return digits;
}

}  // namespace kedge
