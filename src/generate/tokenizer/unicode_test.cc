#include "generate/tokenizer/unicode.h"

#include <gtest/gtest.h>

namespace kedge::unicode {
namespace {

TEST(Unicode, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append(text, c);
    std::size_t pos = 0;
    ASSERT_EQ(next(text, pos), c);
    ASSERT_EQ(pos, text.size());
    ASSERT_TRUE(is_valid(text));
  }
}

TEST(Unicode, RepairsAsTheStandardSays) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(to_valid("abc"), "abc");
  // Unicode 15, tables 3-8 to 3-11.
  EXPECT_EQ(to_valid("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(to_valid("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(to_valid("\xE2\x82"), r);
  EXPECT_FALSE(is_valid("\xE2\x82"));
}

TEST(Unicode, KeepsWhatIsIncomplete) {
  std::string pending = "a\xFF\xE2\x82";
  EXPECT_EQ(take_complete(pending), "a\xEF\xBF\xBD");
  EXPECT_EQ(pending, "\xE2\x82");
  pending += "\xAC!";
  EXPECT_EQ(take_complete(pending), "\xE2\x82\xAC!");
  EXPECT_TRUE(pending.empty());
}

TEST(Unicode, ByteAlphabetIsABijection) {
  for (int b = 0; b < 256; ++b) EXPECT_EQ(char_to_byte(byte_to_char(static_cast<std::uint8_t>(b))), b);
  EXPECT_EQ(byte_to_char(' '), 0x120u);
  EXPECT_EQ(byte_to_char('A'), static_cast<char32_t>('A'));
  int chars = 0;
  for (char32_t c = 0; c < 0x400; ++c) chars += char_to_byte(c) >= 0;
  EXPECT_EQ(chars, 256);
}

}  // namespace
}  // namespace kedge::unicode
