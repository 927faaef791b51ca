// Row operations on logits: softmax, sigmoid, log-sum-exp. Exact maximum; sums in 16 lanes and the fixed tree.
#pragma once

#include <cstdint>

#include "base/exec.h"

namespace kedge {

/// In place over rows [rows, size]: exp(x - max), each divided by the sum.
void softmax(float* x, std::int64_t rows, std::int64_t size, Isa isa) noexcept;
/// out[i] = 1 / (1 + exp(-x[i])).
void sigmoid(const float* x, std::int64_t count, float* out, Isa isa) noexcept;
/// log(sum exp(x)) of one row, accumulated in double (16 lanes, fixed tree) from fp32 exponentials of (x - max).
double log_sum_exp(const float* x, std::int64_t size, Isa isa) noexcept;

}  // namespace kedge
