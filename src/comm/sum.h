// Sums over ranks. In the order of the ranks, so that they repeat to the bit; floating-point sums depend on how many ranks
// there are and on what each had.
#pragma once

#include <cstdint>
#include <span>

#include "comm/communicator.h"

namespace kedge {

/// Each value becomes the sum of the ranks' values, at all ranks, which give as many. null: one rank.
void sum_over_ranks(Communicator* ranks, std::span<float> values);
void sum_over_ranks(Communicator* ranks, std::span<double> values);
void sum_over_ranks(Communicator* ranks, std::span<std::int64_t> values);
double sum_over_ranks(Communicator* ranks, double value);
std::int64_t sum_over_ranks(Communicator* ranks, std::int64_t value);

}  // namespace kedge
