// UTF-8 and the few Unicode properties that tokenizers need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kedge::unicode {

/// Decodes the code point at text[pos] and moves pos behind it. `text` must be valid UTF-8, pos inside it.
char32_t next(std::string_view text, std::size_t& pos) noexcept;
void append(std::string& out, char32_t code_point);

/// Invalid bytes become U+FFFD, one per maximal part of an ill-formed sequence (Unicode 15, section 3.9, as
/// WHATWG and Rust's from_utf8_lossy do).
std::string to_valid(std::string_view bytes);
/// The same for what is complete; the start of a sequence at the end of `pending` stays there.
std::string take_complete(std::string& pending);
bool is_valid(std::string_view bytes) noexcept;

bool is_space(char32_t c) noexcept;  ///< White_Space
bool is_word(char32_t c) noexcept;   ///< Alphabetic, M, Nd, Pc, Join_Control: \w of UTS 18

char32_t to_upper(char32_t c) noexcept;  ///< the simple mapping
char32_t to_lower(char32_t c) noexcept;

/// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and up, so that any
/// bytes are a string without spaces and controls.
char32_t byte_to_char(std::uint8_t byte) noexcept;
/// -1 for a code point outside the alphabet.
int char_to_byte(char32_t c) noexcept;

}  // namespace kedge::unicode
