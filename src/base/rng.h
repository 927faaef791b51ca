// A small, seedable, portable generator (xoshiro256**, Blackman and Vigna; seeded by splitmix64).
#pragma once

#include <cstdint>

namespace kedge {

class Rng {
 public:
  explicit Rng(std::uint64_t seed);
  std::uint64_t next();
  double uniform();                             ///< [0, 1), 53 bits
  std::uint64_t below(std::uint64_t bound);     ///< [0, bound), unbiased
  double normal();                              ///< mean 0, variance 1

 private:
  std::uint64_t s_[4];
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace kedge
