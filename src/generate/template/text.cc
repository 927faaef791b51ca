#include "generate/template/text.h"

#include "generate/tokenizer/unicode.h"

namespace kedge::jinja {
namespace {

template <class Map>
std::string mapped(std::string_view text, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) unicode::append(out, map(unicode::next(text, pos)));
  return out;
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

bool is_python_space(char32_t c) noexcept { return unicode::is_space(c) || (c >= 0x1c && c <= 0x1f); }

std::string_view strip(std::string_view text, bool left, bool right, std::string_view chars) {
  const auto goes = [&](std::string_view point) {
    std::size_t pos = 0;
    return chars.empty() ? is_python_space(unicode::next(point, pos)) : chars.find(point) != std::string_view::npos;
  };
  while (left && !text.empty()) {
    std::size_t n = 1;
    while (n < text.size() && is_continuation(text[n])) ++n;
    if (!goes(text.substr(0, n))) break;
    text.remove_prefix(n);
  }
  while (right && !text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && is_continuation(text[begin])) --begin;
    if (!goes(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> points;
  for (std::size_t pos = 0; pos < text.size();) {
    const std::size_t begin = pos;
    unicode::next(text, pos);
    points.push_back(text.substr(begin, pos - begin));
  }
  return points;
}

std::int64_t count_code_points(std::string_view text) noexcept {
  std::int64_t count = 0;
  for (const char c : text) count += is_continuation(c) ? 0 : 1;
  return count;
}

std::string to_upper(std::string_view text) { return mapped(text, unicode::to_upper); }
std::string to_lower(std::string_view text) { return mapped(text, unicode::to_lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t c) {
    const char32_t out = first ? unicode::to_upper(c) : unicode::to_lower(c);
    first = false;
    return out;
  });
}

}  // namespace kedge::jinja
