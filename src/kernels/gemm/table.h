// The rows of gemm: each computes the same product (gemm.h) and serves some formats, activations and sizes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/task.h"

namespace kedge {

struct GemmRow {
  const char* name;
  Isa isa;
  unsigned formats;         ///< bit per WeightFormat
  Activations activations;  ///< what it reads
  Numerics numerics;        ///< consistent rows serve `fast` too
  std::int64_t min_m, max_m;
  RowLayout layout;         ///< of the packed rows of x
  std::int64_t row_tile;
  std::int64_t panel_tile;  ///< panels computed together; tasks are multiples of it
  bool any_group;           ///< otherwise: groups are multiples of 8 or the whole of k
  PackFunction pack;
  GemmFunction run;
  DequantizeFunction dequantize = nullptr;  ///< for anchors that several weights share; null: each reads it as stored
};

constexpr unsigned format_bit(WeightFormat format) noexcept { return 1u << static_cast<unsigned>(format); }

/// Best first, reference rows last.
std::span<const GemmRow> gemm_table() noexcept;

/// What a weight and a call ask for.
struct GemmQuery {
  GemmDesc desc;
  LoadOptions options;
  std::int64_t m = 0;
};

/// Plain weights and deltas on an anchor read fp32 rows whatever was asked.
Activations effective_activations(const GemmDesc& desc, const LoadOptions& options) noexcept;
/// Null when the row serves the query, else the reason why not.
const char* refusal(const GemmRow& row, const GemmQuery& query) noexcept;
/// The first row without a refusal; the reference rows refuse nothing.
const GemmRow& select_gemm(const GemmQuery& query) noexcept;

}  // namespace kedge
