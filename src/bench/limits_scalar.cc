#include "bench/limit_kernels.h"

namespace kedge {
namespace {

std::uint64_t read_all(const unsigned char* data, std::int64_t bytes) {
  std::uint64_t sums[8] = {};
  for (std::int64_t i = 0; i < bytes; i += 64) {
    std::uint64_t words[8];
    __builtin_memcpy(words, data + i, sizeof(words));
    for (int k = 0; k < 8; ++k) sums[k] ^= words[k];
  }
  std::uint64_t all = 0;
  for (std::uint64_t sum : sums) all ^= sum;
  return all;
}

// The scalar kernels round twice where the others fuse; the peak counts the same two operations.
float fp32(std::int64_t rounds) {
  float a[32];
  for (int k = 0; k < 32; ++k) a[k] = static_cast<float>(k);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int k = 0; k < 32; ++k) a[k] = a[k] * 0.999f + 0.999f;
  }
  float sum = 0;
  for (float value : a) sum += value;
  return sum;
}

}  // namespace

const LimitKernels limits_scalar = {read_all, fp32, 64.0, nullptr, 0.0, ""};

}  // namespace kedge
