// Python's random.Random(seed).sample, so that few-shot examples are those that lm-evaluation-harness draws.
//
// Generator: the Mersenne Twister (Matsumoto and Nishimura 1998) seeded by init_by_array with the seed's 32-bit words;
// drawing as CPython 3.11's random.py does: numbers below n from the top bits, rejected above; a pool for small
// populations, a set of those drawn for large ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace kedge {

class PythonRandom {
 public:
  explicit PythonRandom(std::uint32_t seed);
  /// `count` different indices below `size`; CHECKs count <= size < 2^32.
  std::vector<std::size_t> sample(std::size_t size, std::size_t count);

 private:
  std::size_t below(std::size_t bound);
  std::mt19937 engine_;
};

}  // namespace kedge
