// One group of fake_quant.h, one version per ISA (fake_quant_<isa>.cc from impl.h), all with the same bits.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace kedge {

struct FakeQuantGroup {
  const float* weights = nullptr;
  float* rounding = nullptr;  ///< V; null: 0
  std::int64_t size = 0;
  float scale = 1;
  float low = 0, high = 0;  ///< of c
};

struct FakeQuantSums {
  float codes = 0;    ///< sum g c
  float inside = 0;   ///< sum of g w / s where c is not clamped
  float outside = 0;  ///< sum of g where it is
};

struct FakeQuantKernels {
  /// out = multiplier * c.
  void (*forward)(const FakeQuantGroup& group, float multiplier, float* out) noexcept;
  /// Steps V by lr; the sums are those of V as it was.
  FakeQuantSums (*step)(const FakeQuantGroup& group, const float* gradient, float lr) noexcept;
};

extern const FakeQuantKernels fake_quant_scalar, fake_quant_avx2, fake_quant_avx512;
const FakeQuantKernels& fake_quant_kernels(Isa isa) noexcept;

}  // namespace kedge
