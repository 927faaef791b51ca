// Python's way with text: whitespace, code points, case.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kedge::jinja {

bool is_python_space(char32_t c) noexcept;  ///< str.isspace of one character
/// Without whitespace (chars empty), or without the code points in `chars`, at the left or right end.
std::string_view strip(std::string_view text, bool left, bool right, std::string_view chars = {});
std::vector<std::string_view> code_points(std::string_view text);
std::int64_t count_code_points(std::string_view text) noexcept;
/// Code point by code point (Python's one-to-many mappings, such as that of the German sharp s, are not made).
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
/// The first letter upper, the others lower.
std::string capitalize(std::string_view text);

}  // namespace kedge::jinja
