#include "io/wire/bit_packing.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/rng.h"
#include "io/wire/wire.h"

namespace kedge {
namespace {

std::vector<std::uint32_t> unsigned_words(const std::vector<std::int32_t>& words) {
  return {words.begin(), words.end()};
}

// Vectors worked out by hand from the rule (and equal to GPTQ's qweight, transposed).
TEST(BitPacking, FourBitVector) {
  std::vector<std::uint8_t> codes;
  for (int n = 0; n < 8; ++n) {
    for (int k = 0; k < 8; ++k) codes.push_back(static_cast<std::uint8_t>((7 * n + 3 * k + n * k) % 16));
  }
  EXPECT_EQ(unsigned_words(compressed_tensors::pack_codes(codes, 8, 8, 4)),
            (std::vector<std::uint32_t>{0x52FC9630, 0x3FB73FB7, 0x1C72D83E, 0xF93D71B5, 0xD6F81A3C, 0xB3B3B3B3,
                                        0x907E5C3A, 0x7D39F5B1}));
}

TEST(BitPacking, ThreeBitVector) {
  std::vector<std::uint8_t> codes;
  for (int i = 0; i < 32; ++i) codes.push_back(static_cast<std::uint8_t>((3 * i + 1) % 8));
  EXPECT_EQ(unsigned_words(compressed_tensors::pack_codes(codes, 1, 32, 3)),
            (std::vector<std::uint32_t>{0xE1CC55E1, 0x55E1CC55, 0xCC55E1CC}));
}

TEST(BitPacking, RoundTripsEveryWidthAndLength) {
  Rng rng(1);
  for (int bits = 2; bits <= 8; ++bits) {
    for (std::int64_t cols = 1; cols <= 100; ++cols) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols)), back(codes.size());
      for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(rng.below(1u << bits));
      const auto words = static_cast<std::size_t>(packed_words(cols, bits, BitPacking::dense));
      std::vector<std::byte> bytes(4 * words, std::byte{0xff});
      pack_row(codes.data(), cols, bits, bytes.data());
      unpack_row(bytes.data(), cols, bits, BitPacking::dense, back.data());
      EXPECT_EQ(back, codes) << bits << " bits, " << cols;
      // Bits behind the last value are zero.
      for (std::size_t bit = static_cast<std::size_t>(cols * bits); bit < 32 * words; ++bit) {
        EXPECT_EQ(static_cast<int>(bytes[bit / 8]) >> (bit % 8) & 1, 0) << bits << " bits, " << cols;
      }
    }
  }
}

TEST(BitPacking, ReadsPaddedWords) {
  // 10 values of 3 bits in a word, its top two bits unused: the layout before dense packing.
  for (const std::int64_t cols : {1, 10, 11, 32, 96}) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols)), back(codes.size());
    std::vector<std::uint32_t> words(static_cast<std::size_t>(packed_words(cols, 3, BitPacking::padded)));
    EXPECT_EQ(static_cast<std::int64_t>(words.size()), (cols + 9) / 10);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      codes[i] = static_cast<std::uint8_t>((5 * i + 2) % 8);
      words[i / 10] |= static_cast<std::uint32_t>(codes[i]) << (3 * (i % 10));
    }
    unpack_row(reinterpret_cast<const std::byte*>(words.data()), cols, 3, BitPacking::padded, back.data());
    EXPECT_EQ(back, codes) << cols;
  }
}

}  // namespace
}  // namespace kedge
