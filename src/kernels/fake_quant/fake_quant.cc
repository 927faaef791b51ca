#include "kernels/fake_quant/fake_quant.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/fake_quant/row.h"

namespace kedge {
namespace {

constexpr std::int64_t kTaskWeights = 1 << 15;
constexpr float kFactorLow = 0.5f, kFactorHigh = 2.0f;

float round_to(DType dtype, float x) noexcept {
  switch (dtype) {
    case DType::f16: return to_float(to_float16(x));
    case DType::bf16: return to_float(to_bfloat16(x));
    default: return x;
  }
}

/// The scale of a group, what it came from, and its zero point.
struct Grid {
  float scale = 0, zero = 0;
  float exact = 0;        ///< before the factor
  bool held = false;      ///< kept from 0: no gradient
  bool from_min = false;  ///< symmetric: by which extreme
};

Grid make_grid(const FakeQuantMatrix& m, std::int64_t g) noexcept {
  Grid grid;
  const float low = m.alpha[g] * m.min[g], high = m.beta[g] * m.max[g];
  if (m.args.symmetric) {
    grid.from_min = high < -low;
    grid.exact = (grid.from_min ? -low : -high) / static_cast<float>(m.args.mid_code());
  } else {
    grid.exact = (high - low) / static_cast<float>(m.args.max_code());
  }
  const float least = round_to(m.scale_dtype, m.scale_dtype == DType::f32 ? 1e-8f : 1e-5f);
  grid.scale = round_to(m.scale_dtype, m.factor != nullptr ? m.factor[g] * grid.exact : grid.exact);
  if (std::fabs(grid.scale) < least) {
    grid.held = true;
    grid.scale = grid.scale < 0 ? -least : least;
  }
  if (m.args.symmetric) {
    grid.zero = static_cast<float>(m.args.mid_code());
  } else {
    grid.zero = std::clamp(std::nearbyint(-low / grid.scale), 0.0f, static_cast<float>(m.args.max_code()));
  }
  return grid;
}

FakeQuantGroup make_group(const FakeQuantMatrix& m, std::int64_t g, const Grid& grid) noexcept {
  FakeQuantGroup group;
  group.weights = m.weights + g * m.group;
  group.rounding = m.rounding != nullptr ? m.rounding + g * m.group : nullptr;
  group.size = m.group;
  group.scale = grid.scale;
  group.low = -grid.zero;
  group.high = static_cast<float>(m.args.max_code()) - grid.zero;
  return group;
}

float stepped(float value, float gradient, float lr, float low, float high) noexcept {
  const float moved = gradient > 0 ? value - lr : gradient < 0 ? value + lr : value;
  return std::clamp(moved, low, high);
}

void step_group(const FakeQuantMatrix& m, std::int64_t g, const FakeQuantKernels& kernels, const float* gradient,
                float lr) noexcept {
  const Grid grid = make_grid(m, g);
  const FakeQuantSums sums = kernels.step(make_group(m, g, grid), gradient + g * m.group, lr);
  float by_scale = sums.codes - sums.inside;
  if (!m.args.symmetric) by_scale -= sums.outside * (m.alpha[g] * m.min[g]) / grid.scale;
  if (grid.held) by_scale = 0;
  const float by_exact = m.factor != nullptr ? by_scale * m.factor[g] : by_scale;
  float by_alpha = 0, by_beta = 0;
  if (m.args.symmetric) {
    // Of two equal extremes both move, as torch.max passes its gradient on to both.
    const float low = m.alpha[g] * m.min[g], high = m.beta[g] * m.max[g];
    const float sign = grid.from_min ? 1.0f : -1.0f;
    if (high <= -low) by_alpha = sign * by_exact * -m.min[g];
    if (high >= -low) by_beta = sign * by_exact * m.max[g];
  } else {
    const float per_step = by_exact / static_cast<float>(m.args.max_code());
    by_alpha = per_step * -m.min[g] + sums.outside * m.min[g];
    by_beta = per_step * m.max[g];
  }
  m.alpha[g] = stepped(m.alpha[g], by_alpha, lr, 0, 1);
  m.beta[g] = stepped(m.beta[g], by_beta, lr, 0, 1);
  if (m.factor != nullptr) m.factor[g] = stepped(m.factor[g], by_scale * grid.exact, lr, kFactorLow, kFactorHigh);
}

struct Task {
  std::size_t matrix;
  std::int64_t begin, end;  ///< groups
};

template <class F>
void for_each_group(ThreadPool& threads, std::span<const FakeQuantMatrix> matrices, F&& f) {
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const FakeQuantMatrix& m = matrices[i];
    KEDGE_CHECK(m.group > 0 && m.args.num_bits >= 2 && m.args.num_bits <= 8);
    const std::int64_t step = std::max<std::int64_t>(1, kTaskWeights / m.group);
    for (std::int64_t g = 0; g < m.groups; g += step) tasks.push_back({i, g, std::min(m.groups, g + step)});
  }
  threads.parallel_for(static_cast<std::int64_t>(tasks.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const Task& task = tasks[static_cast<std::size_t>(t)];
      for (std::int64_t g = task.begin; g < task.end; ++g) f(task.matrix, g);
    }
  });
}

}  // namespace

void find_group_ranges(const float* weights, std::int64_t groups, std::int64_t group, float* min, float* max) noexcept {
  for (std::int64_t g = 0; g < groups; ++g) {
    const float* w = weights + g * group;
    min[g] = std::min(0.0f, *std::min_element(w, w + group));
    max[g] = std::max(0.0f, *std::max_element(w, w + group));
  }
}

void fake_quantize(ThreadPool& threads, Isa isa, std::span<const FakeQuantMatrix> matrices,
                   std::span<float* const> out) {
  KEDGE_CHECK(matrices.size() == out.size());
  const FakeQuantKernels& kernels = fake_quant_kernels(isa);
  for_each_group(threads, matrices, [&](std::size_t i, std::int64_t g) {
    const Grid grid = make_grid(matrices[i], g);
    kernels.forward(make_group(matrices[i], g, grid), grid.scale, out[i] + g * matrices[i].group);
  });
}

void step_fake_quantization(ThreadPool& threads, Isa isa, std::span<const FakeQuantMatrix> matrices,
                            std::span<const float* const> gradients, float lr) {
  KEDGE_CHECK(matrices.size() == gradients.size());
  const FakeQuantKernels& kernels = fake_quant_kernels(isa);
  for_each_group(threads, matrices, [&](std::size_t i, std::int64_t g) {
    if (gradients[i] != nullptr) step_group(matrices[i], g, kernels, gradients[i], lr);
  });
}

QuantTensor encode_fake_quantized(Isa isa, const FakeQuantMatrix& m, std::int64_t rows, std::int64_t cols) {
  KEDGE_CHECK(rows * cols == m.groups * m.group && cols % m.group == 0);
  const FakeQuantKernels& kernels = fake_quant_kernels(isa);
  QuantTensor q;
  q.args = m.args;
  q.rows = rows;
  q.cols = cols;
  q.scale_dtype = m.scale_dtype;
  q.codes.resize(static_cast<std::size_t>(rows * cols));
  q.scales.resize(static_cast<std::size_t>(m.groups));
  if (!m.args.symmetric) q.zeros.resize(q.scales.size());
  std::vector<float> codes(static_cast<std::size_t>(m.group));
  for (std::int64_t g = 0; g < m.groups; ++g) {
    const Grid grid = make_grid(m, g);
    kernels.forward(make_group(m, g, grid), 1.0f, codes.data());
    q.scales[static_cast<std::size_t>(g)] = grid.scale;
    if (!m.args.symmetric) q.zeros[static_cast<std::size_t>(g)] = static_cast<std::uint8_t>(grid.zero);
    for (std::int64_t i = 0; i < m.group; ++i) {
      q.codes[static_cast<std::size_t>(g * m.group + i)] =
          static_cast<std::uint8_t>(codes[static_cast<std::size_t>(i)] + grid.zero);
    }
  }
  return q;
}

}  // namespace kedge
