// Source of elementwise_<isa>.cc, which define KEDGE_ELEMENTWISE_KERNELS (the name of the set) before including it.
#include "kernels/vec/elementwise.h"
#include "kernels/vec/vec16.h"

namespace kedge {
namespace {

void rmsnorm_rows(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t size, const float* weight,
                  float eps, float* y, std::int64_t ldy) noexcept {
  const std::int64_t whole = size / kLanes * kLanes, rest = size - whole;
  for (std::int64_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    V16 squares = set1(0.0f);
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      const V16 a = load(x + i);
      squares = fma(a, a, squares);
    }
    if (rest > 0) {
      const V16 a = load_tail(x + whole, rest, 0.0f);
      squares = fma(a, a, squares);
    }
    const float mean = hsum(squares) / static_cast<float>(size);
    const V16 inverse = set1(1.0f / __builtin_sqrtf(mean + eps));
    for (std::int64_t i = 0; i < whole; i += kLanes) store(y + i, mul(mul(load(x + i), inverse), load(weight + i)));
    if (rest > 0) {
      const V16 a = mul(load_tail(x + whole, rest, 0.0f), inverse);
      store_tail(y + whole, rest, mul(a, load_tail(weight + whole, rest, 0.0f)));
    }
  }
}

void rotate_halves(const float* src, float* dst, const float* cos, const float* sin, std::int64_t half) noexcept {
  const std::int64_t whole = half / kLanes * kLanes, rest = half - whole;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const V16 a = load(src + i), b = load(src + half + i), c = load(cos + i), s = load(sin + i);
    store(dst + i, sub(mul(a, c), mul(b, s)));
    store(dst + half + i, add(mul(b, c), mul(a, s)));
  }
  if (rest > 0) {
    const V16 a = load_tail(src + whole, rest, 0.0f), b = load_tail(src + half + whole, rest, 0.0f);
    const V16 c = load_tail(cos + whole, rest, 0.0f), s = load_tail(sin + whole, rest, 0.0f);
    store_tail(dst + whole, rest, sub(mul(a, c), mul(b, s)));
    store_tail(dst + half + whole, rest, add(mul(b, c), mul(a, s)));
  }
}

constexpr float kMinusInfinity = -__builtin_inff();

float row_max(const float* x, std::int64_t size) noexcept {
  const std::int64_t whole = size / kLanes * kLanes;
  V16 m = set1(kMinusInfinity);
  for (std::int64_t i = 0; i < whole; i += kLanes) m = max(m, load(x + i));
  if (size > whole) m = max(m, load_tail(x + whole, size - whole, kMinusInfinity));
  return hmax(m);
}

void softmax_row(float* x, std::int64_t size) noexcept {
  const std::int64_t whole = size / kLanes * kLanes, rest = size - whole;
  const V16 m = set1(row_max(x, size));
  V16 sum = set1(0.0f);
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const V16 e = exp(sub(load(x + i), m));
    store(x + i, e);
    sum = add(sum, e);
  }
  if (rest > 0) {
    const V16 e = exp(sub(load_tail(x + whole, rest, kMinusInfinity), m));
    store_tail(x + whole, rest, e);
    sum = add(sum, e);
  }
  const V16 total = set1(hsum(sum));
  for (std::int64_t i = 0; i < whole; i += kLanes) store(x + i, div(load(x + i), total));
  if (rest > 0) store_tail(x + whole, rest, div(load_tail(x + whole, rest, 0.0f), total));
}

void sigmoid_row(const float* x, std::int64_t count, float* out) noexcept {
  const std::int64_t whole = count / kLanes * kLanes, rest = count - whole;
  for (std::int64_t i = 0; i < whole; i += kLanes) store(out + i, logistic(load(x + i)));
  if (rest > 0) store_tail(out + whole, rest, logistic(load_tail(x + whole, rest, 0.0f)));
}

void exp_sum_row(const float* x, std::int64_t size, float* maximum, double* sum) noexcept {
  const std::int64_t whole = size / kLanes * kLanes, rest = size - whole;
  *maximum = row_max(x, size);
  const V16 m = set1(*maximum);
  double lanes[kLanes] = {};
  float e[kLanes];
  for (std::int64_t i = 0; i < size; i += kLanes) {
    store(e, exp(sub(i < whole ? load(x + i) : load_tail(x + i, rest, kMinusInfinity), m)));
    for (int l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(e[l]);
  }
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  *sum = lanes[0];
}

KEDGE_VEC V16 silu(V16 x) { return div(x, add(set1(1.0f), exp(neg(x)))); }

/// x Phi(x); Phi from half_erfc(|x| / sqrt 2), which is the lower tail.
KEDGE_VEC V16 gelu(V16 x) {
  const V16 tail = half_erfc(mul(abs(x), set1(0.70710678f)));
  return mul(x, select_less(x, set1(0.0f), tail, sub(set1(1.0f), tail)));
}

/// x / 2 (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
KEDGE_VEC V16 gelu_tanh(V16 x) {
  const V16 inner = mul(x, fma(mul(x, x), set1(0.044715f), set1(1.0f)));
  return div(x, add(set1(1.0f), exp(mul(inner, set1(-1.5957691f)))));
}

KEDGE_VEC V16 relu2(V16 x) {
  const V16 positive = max(set1(0.0f), x);  // in this order NaN stays
  return mul(positive, positive);
}

template <V16 (*kActivation)(V16)>
void gated_row(const float* gate, const float* up, std::int64_t size, float* h) noexcept {
  const std::int64_t whole = size / kLanes * kLanes, rest = size - whole;
  for (std::int64_t i = 0; i < whole; i += kLanes) store(h + i, mul(kActivation(load(gate + i)), load(up + i)));
  if (rest > 0) {
    store_tail(h + whole, rest,
               mul(kActivation(load_tail(gate + whole, rest, 0.0f)), load_tail(up + whole, rest, 0.0f)));
  }
}

}  // namespace

const ElementwiseKernels KEDGE_ELEMENTWISE_KERNELS = {
    rmsnorm_rows, rotate_halves, softmax_row, sigmoid_row, exp_sum_row,
    {gated_row<silu>, gated_row<gelu>, gated_row<gelu_tanh>, gated_row<relu2>},
};

}  // namespace kedge
