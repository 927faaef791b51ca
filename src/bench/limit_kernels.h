// Loops that do nothing but reach one limit of the machine; one set per ISA (limits_<isa>.cc).
#pragma once

#include <cstdint>

namespace kedge {

struct LimitKernels {
  /// Reads all of it (a multiple of 4096 bytes, aligned to 64) and returns something that depends on every byte.
  std::uint64_t (*read)(const unsigned char* data, std::int64_t bytes);
  /// `rounds` rounds of independent multiply-adds.
  float (*fp32)(std::int64_t rounds);
  double fp32_per_round;  ///< floating-point operations
  std::int32_t (*int8)(std::int64_t rounds);  ///< may be null
  double int8_per_round;
  const char* int8_instruction;
};

extern const LimitKernels limits_scalar, limits_avx2, limits_avx512, limits_avx512vnni;

}  // namespace kedge
