// Rounding of the columns of one block for one panel of rows, one version per ISA (gptq_<isa>.cc from impl.h), all with
// the same bits. Matrices of a panel are transposed: [columns][kGptqRows].
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace kedge {

constexpr std::int64_t kGptqRows = 64;
constexpr std::int64_t kGptqBlock = 128;

struct GptqColumns {
  float* w = nullptr;               ///< all columns; those of [begin, block_end) are updated
  std::int64_t begin = 0, end = 0;  ///< columns to round
  std::int64_t block_begin = 0, block_end = 0;
  const float* factor = nullptr;        ///< U
  const float* asymmetric = nullptr;    ///< P or null
  std::int64_t ld = 0;                  ///< of U and P
  const float* scales = nullptr;        ///< [groups][kGptqRows]
  const float* zeros = nullptr;         ///< [groups][kGptqRows], signed codes
  const std::int32_t* group = nullptr;  ///< [columns] group of a column
  float low = 0, high = 0;              ///< signed codes
  float* codes = nullptr;               ///< [columns of the block][kGptqRows], signed
  float* errors = nullptr;              ///< the same shape: e
  float* targets = nullptr;             ///< the same shape: w before rounding; only with P
  float* sum = nullptr;                 ///< [kGptqRows]: += e^2
};

using GptqKernel = void (*)(const GptqColumns&) noexcept;
void gptq_columns_scalar(const GptqColumns&) noexcept;
void gptq_columns_avx2(const GptqColumns&) noexcept;
void gptq_columns_avx512(const GptqColumns&) noexcept;
GptqKernel gptq_kernel(Isa isa) noexcept;

}  // namespace kedge
