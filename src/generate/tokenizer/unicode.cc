#include "generate/tokenizer/unicode.h"

#include <utf8proc.h>

#include <array>

namespace kedge::unicode {
namespace {

constexpr char32_t replacement = 0xFFFD;

struct Sequence {
  std::size_t length = 1;  // bytes of the sequence, or of its longest well-formed start
  bool valid = false;
  bool cut_off = false;  // the text ended inside it
};

// Unicode 15, table 3-7: the second byte's range depends on the first.
Sequence scan(std::string_view text, std::size_t pos) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[pos + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {1, true, false};
  std::size_t length = 0;
  std::uint8_t low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false, false};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (pos + i >= text.size()) return {i, false, true};
    if (byte(i) < low || byte(i) > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false};
}

// Appends the repaired text; stops before a cut-off sequence at the end. Returns the bytes consumed.
std::size_t repair(std::string_view bytes, std::string& out) {
  out.reserve(out.size() + bytes.size());
  std::size_t begin = 0, pos = 0;
  while (pos < bytes.size()) {
    const Sequence s = scan(bytes, pos);
    if (s.valid) {
      pos += s.length;
      continue;
    }
    out.append(bytes.substr(begin, pos - begin));
    if (s.cut_off) return pos;
    append(out, replacement);
    pos += s.length;
    begin = pos;
  }
  out.append(bytes.substr(begin));
  return bytes.size();
}

struct ByteAlphabet {
  std::array<char32_t, 256> to_char{};
  std::array<std::int16_t, 512> to_byte{};
};

constexpr ByteAlphabet make_byte_alphabet() {
  ByteAlphabet a;
  for (auto& b : a.to_byte) b = -1;
  char32_t spare = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    a.to_char[b] = printable ? static_cast<char32_t>(b) : spare++;
    a.to_byte[a.to_char[b]] = static_cast<std::int16_t>(b);
  }
  return a;
}

constexpr ByteAlphabet byte_alphabet = make_byte_alphabet();

}  // namespace

char32_t next(std::string_view text, std::size_t& pos) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<std::uint8_t>(text[pos + i])); };
  const char32_t lead = byte(0);
  char32_t c;
  if (lead < 0x80) {
    c = lead;
    pos += 1;
  } else if (lead < 0xE0) {
    c = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    pos += 2;
  } else if (lead < 0xF0) {
    c = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    pos += 3;
  } else {
    c = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    pos += 4;
  }
  return c;
}

void append(std::string& out, char32_t c) {
  const auto put = [&](char32_t b) { out.push_back(static_cast<char>(static_cast<std::uint8_t>(b))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

std::string to_valid(std::string_view bytes) {
  std::string out;
  if (repair(bytes, out) < bytes.size()) append(out, replacement);
  return out;
}

std::string take_complete(std::string& pending) {
  std::string out;
  pending.erase(0, repair(pending, out));
  return out;
}

bool is_valid(std::string_view bytes) noexcept {
  for (std::size_t pos = 0; pos < bytes.size();) {
    const Sequence s = scan(bytes, pos);
    if (!s.valid) return false;
    pos += s.length;
  }
  return true;
}

bool is_space(char32_t c) noexcept {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c) noexcept {
  // Alphabetic symbols (category So): circled and squared Latin letters.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
      (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

char32_t to_upper(char32_t c) noexcept {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_lower(char32_t c) noexcept {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

char32_t byte_to_char(std::uint8_t byte) noexcept { return byte_alphabet.to_char[byte]; }

int char_to_byte(char32_t c) noexcept { return c < byte_alphabet.to_byte.size() ? byte_alphabet.to_byte[c] : -1; }

}  // namespace kedge::unicode
