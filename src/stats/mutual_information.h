// How much one label says of another.
//
//   I(A; B) = sum over (a, b) of p(a, b) ln(p(a, b) / (p(a) p(b))), nats, from counts
// A finite sample gives more than 0 even where the labels have nothing to do with each other. The null distribution
// comes from permutations: one side is put into random orders, which keeps both margins.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

/// counts: [rows, columns], none negative; NaN when all are 0.
double mutual_information(std::span<const std::int64_t> counts, std::int64_t columns);

struct PermutationTest {
  double value = 0;      ///< of the labels as they are
  double null_mean = 0;  ///< over the permutations
  double null_high = 0;  ///< their 95 % quantile
  double p = 0;          ///< (1 + permutations with as much) / (1 + permutations)
  int permutations = 0;
};
/// a[i], b[i]: labels of sample i, from 0. The same arguments give the same bits.
PermutationTest mutual_information_test(std::span<const int> a, std::span<const int> b, int permutations,
                                        std::uint64_t seed);

}  // namespace kedge
