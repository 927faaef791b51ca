// Codes of 2 to 8 bits in 32-bit words, LSB first, along a row.
//
// dense: value i occupies bits [b i, b i + b) of the row's bit string, crossing words (compressed-tensors since
// 3f01c782, GPTQ for 3 bit). padded: 32 / b values per word, the rest of the word is zero (compressed-tensors before).
// The two are one for b = 2, 4, 8.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kedge {

enum class BitPacking : std::uint8_t { dense, padded };

/// Words of a row; cols * bits must not overflow.
constexpr std::int64_t packed_words(std::int64_t cols, int bits, BitPacking packing) noexcept {
  return packing == BitPacking::dense ? (cols * bits + 31) / 32 : (cols + 32 / bits - 1) / (32 / bits);
}

/// codes [cols] -> words [packed_words], dense.
void pack_row(const std::uint8_t* codes, std::int64_t cols, int bits, std::byte* words) noexcept;
/// words (unaligned) -> codes [cols].
void unpack_row(const std::byte* words, std::int64_t cols, int bits, BitPacking packing, std::uint8_t* codes) noexcept;

}  // namespace kedge
