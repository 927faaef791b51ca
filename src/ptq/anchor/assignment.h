// The assignment problem: which row goes with which column, so that the sum is largest.
//
//   max over permutations p of  sum_i gain[i, p(i)]
// Shortest augmenting paths over the dual (Jonker and Volgenant, A shortest augmenting path algorithm for dense and
// sparse linear assignment problems, Computing 38, 1987), in double; O(n^3) at most. Of equal paths the one through the
// lower column: the same answer on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kedge {

struct Assignment {
  std::vector<std::int32_t> column_of;  ///< [n] p(i)
  std::vector<double> row_price,
      column_price;  ///< [n] u, v with u_i + v_j >= gain[i, j], equal where p(i) = j: proves it
};

/// gain: [n, n], finite.
Assignment solve_assignment(std::span<const float> gain, std::int64_t n);

}  // namespace kedge
