// Source of fake_quant_<isa>.cc, which define KEDGE_FAKE_QUANT (the set's name) before including it.
#include "kernels/fake_quant/row.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds |x| < 2^22 to an integer, ties to even
constexpr float kRoundingLimit = 0.5f;

struct Grid {
  V16 scale, low, high, below, above, rounder;
};

KEDGE_VEC Grid make_grid(const FakeQuantGroup& g) {
  // One step beyond either end tells what is clamped; further out the rounding would be no integer.
  return {set1(g.scale), set1(g.low), set1(g.high), set1(g.low - 1), set1(g.high + 1), set1(kRounder)};
}

/// round(w / s + V) where that is within a step of the codes.
KEDGE_VEC V16 rounded(const Grid& grid, V16 quotient, V16 rounding) {
  const V16 x = min(max(add(quotient, rounding), grid.below), grid.above);
  return sub(add(x, grid.rounder), grid.rounder);
}

KEDGE_VEC V16 clamped(const Grid& grid, V16 x) { return min(max(x, grid.low), grid.high); }

void forward(const FakeQuantGroup& g, float multiplier, float* out) noexcept {
  const Grid grid = make_grid(g);
  const V16 factor = set1(multiplier), none = set1(0);
  std::int64_t i = 0;
  for (; i + kLanes <= g.size; i += kLanes) {
    const V16 v = g.rounding != nullptr ? load(g.rounding + i) : none;
    store(out + i, mul(clamped(grid, rounded(grid, div(load(g.weights + i), grid.scale), v)), factor));
  }
  if (i == g.size) return;
  const std::int64_t rest = g.size - i;
  const V16 v = g.rounding != nullptr ? load_tail(g.rounding + i, rest, 0) : none;
  const V16 w = load_tail(g.weights + i, rest, 0);
  store_tail(out + i, rest, mul(clamped(grid, rounded(grid, div(w, grid.scale), v)), factor));
}

struct Accumulator {
  V16 codes, inside, outside;
};

/// Adds 16 weights to the sums and returns their stepped V.
KEDGE_VEC V16 step_lanes(const Grid& grid, V16 w, V16 v, V16 gradient, V16 step, Accumulator& sums) {
  const V16 zero = set1(0), limit = set1(kRoundingLimit);
  const V16 quotient = div(w, grid.scale);
  const V16 r = rounded(grid, quotient, v);
  // 0 where c is clamped.
  const V16 in = select_less(r, grid.low, zero, select_less(grid.high, r, zero, gradient));
  sums.codes = fma(gradient, clamped(grid, r), sums.codes);
  sums.inside = fma(in, quotient, sums.inside);
  sums.outside = add(sums.outside, sub(gradient, in));
  // step carries the sign of the scale.
  const V16 moved = select_less(zero, in, sub(v, step), select_less(in, zero, add(v, step), v));
  return min(max(moved, neg(limit)), limit);
}

FakeQuantSums step(const FakeQuantGroup& g, const float* gradient, float lr) noexcept {
  const Grid grid = make_grid(g);
  const V16 none = set1(0), signed_step = set1(g.scale < 0 ? -lr : lr);
  Accumulator sums{none, none, none};
  std::int64_t i = 0;
  for (; i + kLanes <= g.size; i += kLanes) {
    const V16 v = g.rounding != nullptr ? load(g.rounding + i) : none;
    const V16 moved = step_lanes(grid, load(g.weights + i), v, load(gradient + i), signed_step, sums);
    if (g.rounding != nullptr) store(g.rounding + i, moved);
  }
  if (i < g.size) {
    const std::int64_t rest = g.size - i;
    const V16 v = g.rounding != nullptr ? load_tail(g.rounding + i, rest, 0) : none;
    const V16 moved =
        step_lanes(grid, load_tail(g.weights + i, rest, 0), v, load_tail(gradient + i, rest, 0), signed_step, sums);
    if (g.rounding != nullptr) store_tail(g.rounding + i, rest, moved);
  }
  return {hsum(sums.codes), hsum(sums.inside), hsum(sums.outside)};
}

}  // namespace

const FakeQuantKernels KEDGE_FAKE_QUANT = {forward, step};

}  // namespace kedge
