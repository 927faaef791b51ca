// Source of reduce_<isa>.cc, which define KEDGE_REDUCE_KERNELS (the name of the set) before including it.
#include "kernels/reduce/reduce.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

/// sum over 16 lanes of step(lanes of x..., accumulator); elements behind the end are 0.
template <class Step, class... Rows>
KEDGE_VEC float sum_rows(std::int64_t size, Step step, const Rows*... rows) {
  const std::int64_t whole = size / kLanes * kLanes, rest = size - whole;
  V16 sum = set1(0.0f);
  for (std::int64_t i = 0; i < whole; i += kLanes) sum = step(sum, load(rows + i)...);
  if (rest > 0) sum = step(sum, load_tail(rows + whole, rest, 0.0f)...);
  return hsum(sum);
}

float dot_row(const float* a, const float* b, std::int64_t size) noexcept {
  return sum_rows(size, [](V16 sum, V16 x, V16 y) { return fma(x, y, sum); }, a, b);
}

float squared_distance_row(const float* a, const float* b, std::int64_t size) noexcept {
  return sum_rows(
      size,
      [](V16 sum, V16 x, V16 y) {
        const V16 r = sub(x, y);
        return fma(r, r, sum);
      },
      a, b);
}

float huber_distance_row(const float* a, const float* b, std::int64_t size, float delta) noexcept {
  const V16 limit = set1(delta), half = set1(-0.5f);
  return sum_rows(
      size,
      [=](V16 sum, V16 x, V16 y) {
        const V16 r = abs(sub(x, y));
        const V16 m = min(limit, r);  // a NaN in r stays
        return fma(m, fma(half, m, r), sum);
      },
      a, b);
}

float dot_minus_twice_row(const float* h, const float* q, const float* p, std::int64_t size) noexcept {
  const V16 minus_two = set1(-2.0f);
  return sum_rows(size, [=](V16 sum, V16 x, V16 y, V16 z) { return fma(x, fma(minus_two, z, y), sum); }, h, q, p);
}

}  // namespace

const ReduceKernels KEDGE_REDUCE_KERNELS = {dot_row, squared_distance_row, huber_distance_row, dot_minus_twice_row};

}  // namespace kedge
