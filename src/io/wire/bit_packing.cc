#include "io/wire/bit_packing.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace kedge {
namespace {

static_assert(std::endian::native == std::endian::little, "a row's bit string is its bytes");

/// 8 codes of b bits are b bytes in every width; the last, partial run is padded with zeros.
std::uint64_t gather(const std::uint8_t* codes, std::int64_t count, int bits) noexcept {
  std::uint64_t run = 0;
  for (std::int64_t i = 0; i < count; ++i) run |= static_cast<std::uint64_t>(codes[i]) << (bits * i);
  return run;
}

template <int bits>
void pack_runs(const std::uint8_t* codes, std::int64_t runs, std::byte* out) noexcept {
  for (std::int64_t r = 0; r < runs; ++r) {
    std::uint64_t run = 0;
    for (int i = 0; i < 8; ++i) run |= static_cast<std::uint64_t>(codes[8 * r + i]) << (bits * i);
    std::memcpy(out + bits * r, &run, bits);
  }
}

template <int bits>
void unpack_runs(const std::byte* words, std::int64_t runs, std::uint8_t* codes) noexcept {
  for (std::int64_t r = 0; r < runs; ++r) {
    std::uint64_t run = 0;
    std::memcpy(&run, words + bits * r, bits);
    for (int i = 0; i < 8; ++i) codes[8 * r + i] = static_cast<std::uint8_t>(run >> (bits * i) & ((1u << bits) - 1));
  }
}

// The common widths in a form that compilers vectorize.
template <>
void unpack_runs<4>(const std::byte* words, std::int64_t runs, std::uint8_t* codes) noexcept {
  for (std::int64_t i = 0; i < 4 * runs; ++i) {
    const auto pair = static_cast<std::uint8_t>(words[i]);
    codes[2 * i] = pair & 15;
    codes[2 * i + 1] = pair >> 4;
  }
}

template <>
void unpack_runs<8>(const std::byte* words, std::int64_t runs, std::uint8_t* codes) noexcept {
  std::memcpy(codes, words, static_cast<std::size_t>(8 * runs));
}

template <template <int> class Op, class... Args>
void by_width(int bits, Args... args) noexcept {
  switch (bits) {
    case 2: return Op<2>::run(args...);
    case 3: return Op<3>::run(args...);
    case 4: return Op<4>::run(args...);
    case 5: return Op<5>::run(args...);
    case 6: return Op<6>::run(args...);
    case 7: return Op<7>::run(args...);
    default: return Op<8>::run(args...);
  }
}
template <int bits>
struct Pack {
  static void run(const std::uint8_t* codes, std::int64_t runs, std::byte* out) noexcept {
    pack_runs<bits>(codes, runs, out);
  }
};
template <int bits>
struct Unpack {
  static void run(const std::byte* words, std::int64_t runs, std::uint8_t* codes) noexcept {
    unpack_runs<bits>(words, runs, codes);
  }
};

void unpack_padded(const std::byte* words, std::int64_t cols, int bits, std::uint8_t* codes) noexcept {
  const std::int64_t per_word = 32 / bits;
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::int64_t begin = 0; begin < cols; begin += per_word, words += 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, words, 4);
    const std::int64_t end = std::min(cols, begin + per_word);
    for (std::int64_t i = begin; i < end; ++i, word >>= bits) codes[i] = static_cast<std::uint8_t>(word & mask);
  }
}

}  // namespace

void pack_row(const std::uint8_t* codes, std::int64_t cols, int bits, std::byte* words) noexcept {
  const std::int64_t runs = cols / 8, rest = cols % 8;
  by_width<Pack>(bits, codes, runs, words);
  const std::uint64_t last = gather(codes + 8 * runs, rest, bits);
  const std::int64_t used = runs * bits;
  // The last run and the zero bytes up to the end of the row.
  std::byte* out = words + used;
  const std::int64_t left = packed_words(cols, bits, BitPacking::dense) * 4 - used;
  for (std::int64_t i = 0; i < left; ++i) out[i] = i < 8 ? static_cast<std::byte>(last >> (8 * i)) : std::byte{0};
}

void unpack_row(const std::byte* words, std::int64_t cols, int bits, BitPacking packing, std::uint8_t* codes) noexcept {
  if (packing == BitPacking::padded) return unpack_padded(words, cols, bits, codes);
  const std::int64_t runs = cols / 8, rest = cols % 8;
  by_width<Unpack>(bits, words, runs, codes);
  if (rest == 0) return;
  std::uint64_t last = 0;
  std::memcpy(&last, words + runs * bits, static_cast<std::size_t>((rest * bits + 7) / 8));
  for (std::int64_t i = 0; i < rest; ++i) {
    codes[8 * runs + i] = static_cast<std::uint8_t>(last >> (bits * i) & ((1u << bits) - 1));
  }
}

}  // namespace kedge
