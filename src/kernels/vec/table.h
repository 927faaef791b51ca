// The sets of row kernels, by ISA.
#pragma once

#include "base/cpu.h"
#include "kernels/vec/elementwise.h"

namespace kedge {

/// avx512_vnni has no set of its own and takes avx512's.
const ElementwiseKernels& elementwise_kernels(Isa isa) noexcept;

}  // namespace kedge
