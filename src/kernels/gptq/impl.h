// Source of gptq_<isa>.cc, which define KEDGE_GPTQ_COLUMNS (the function's name) before including it.
#include "kernels/gptq/block.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

constexpr int kVectors = static_cast<int>(kGptqRows / kLanes);
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even

struct Column {
  V16 target[kVectors], minus_error[kVectors];
};

/// Rounds column i; the arithmetic of quant's encode_group.
KEDGE_VEC void round_column(const GptqColumns& c, std::int64_t i, Column& out) {
  const V16 pivot = set1(c.factor[i * c.ld + i]), low = set1(c.low), high = set1(c.high), rounder = set1(kRounder);
  const std::int64_t at = (i - c.block_begin) * kGptqRows;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t lane = v * kLanes;
    const V16 w = load(c.w + i * kGptqRows + lane);
    const V16 scale = load(c.scales + c.group[i] * kGptqRows + lane);
    const V16 zero = load(c.zeros + c.group[i] * kGptqRows + lane);
    const V16 clamped = min(max(add(div(w, scale), zero), low), high);
    const V16 code = sub(add(clamped, rounder), rounder);
    const V16 error = div(sub(w, mul(sub(code, zero), scale)), pivot);
    store(c.codes + at + lane, code);
    store(c.errors + at + lane, error);
    store(c.sum + lane, fma(error, error, load(c.sum + lane)));
    if (c.targets != nullptr) store(c.targets + at + lane, w);
    out.target[v] = w;
    out.minus_error[v] = neg(error);
  }
}

}  // namespace

void KEDGE_GPTQ_COLUMNS(const GptqColumns& c) noexcept {
  for (std::int64_t i = c.begin; i < c.end; ++i) {
    Column column;
    round_column(c, i, column);
    const float* u = c.factor + i * c.ld;
    const float* p = c.asymmetric != nullptr ? c.asymmetric + i * c.ld : nullptr;
    for (std::int64_t j = i + 1; j < c.block_end; ++j) {
      float* w = c.w + j * kGptqRows;
      V16 acc[kVectors];
      const V16 x = set1(u[j]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[v] = fma(column.minus_error[v], x, load(w + v * kLanes));
      if (p != nullptr) {
        const V16 y = set1(p[j]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[v] = fma(column.target[v], y, acc[v]);
      }
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(w + v * kLanes, acc[v]);
    }
  }
}

}  // namespace kedge
