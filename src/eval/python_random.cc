#include "eval/python_random.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <sstream>

#include "base/check.h"

namespace kedge {
namespace {

constexpr std::size_t kWords = 624;

// init_genrand and init_by_array of the authors' mt19937ar.c, for a key of one word. std::mt19937 has the generator but
// not this seeding; its state is set through its text form.
std::array<std::uint32_t, kWords> initial_state(std::uint32_t key) {
  std::array<std::uint32_t, kWords> s;
  s[0] = 19650218u;
  for (std::uint32_t i = 1; i < kWords; ++i) s[i] = 1812433253u * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
  std::uint32_t i = 1;
  const auto next = [&] {
    if (++i < kWords) return;
    s[0] = s[kWords - 1];
    i = 1;
  };
  for (std::size_t k = 0; k < kWords; ++k, next()) s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + key;
  for (std::size_t k = 1; k < kWords; ++k, next()) s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - i;
  s[0] = 0x80000000u;
  return s;
}

}  // namespace

PythonRandom::PythonRandom(std::uint32_t seed) {
  std::stringstream text;
  for (const std::uint32_t word : initial_state(seed)) text << word << ' ';
  text << kWords;  // libstdc++ writes its position last: the state is used up
  text >> engine_;
  KEDGE_CHECK(!text.fail());
}

std::size_t PythonRandom::below(std::size_t bound) {
  const int bits = std::bit_width(bound);
  for (;;) {
    const std::size_t value = static_cast<std::uint32_t>(engine_()) >> (32 - bits);
    if (value < bound) return value;
  }
}

std::vector<std::size_t> PythonRandom::sample(std::size_t size, std::size_t count) {
  KEDGE_CHECK(count <= size && size < (std::size_t{1} << 32));
  double set_size = 21;
  if (count > 5) set_size += std::pow(4, std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0)));
  std::vector<std::size_t> out;
  if (static_cast<double>(size) <= set_size) {
    std::vector<std::size_t> pool(size);
    for (std::size_t i = 0; i < size; ++i) pool[i] = i;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t j = below(size - i);
      out.push_back(pool[j]);
      pool[j] = pool[size - i - 1];
    }
    return out;
  }
  while (out.size() < count) {
    const std::size_t j = below(size);
    if (std::find(out.begin(), out.end(), j) == out.end()) out.push_back(j);
  }
  return out;
}

}  // namespace kedge
