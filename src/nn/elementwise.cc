#include "nn/elementwise.h"

#include <algorithm>

namespace kedge {
namespace {

// Elements per claim: 64 KiB, far above the cost of a claim, small enough to balance.
constexpr std::int64_t kGrain = 16384;

}  // namespace

void add_bias(const ExecContext& ctx, float* y, std::int64_t ldy, std::int64_t rows, std::int64_t size,
              const float* bias) {
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, size));
  ctx.threads.parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = y + r * ldy;
      for (std::int64_t i = 0; i < size; ++i) row[i] += bias[i];
    }
  });
}

void add_bias_relu(const ExecContext& ctx, float* y, std::int64_t ldy, std::int64_t rows, std::int64_t size,
                   const float* bias) {
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, size));
  ctx.threads.parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = y + r * ldy;
      for (std::int64_t i = 0; i < size; ++i) {
        const float sum = row[i] + bias[i];
        row[i] = sum < 0.0f ? 0.0f : sum;
      }
    }
  });
}

void add_scaled(const ExecContext& ctx, float* h, const float* x, std::int64_t count, float scale) {
  ctx.threads.parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    if (scale == 1.0f) {
      for (std::int64_t i = begin; i < end; ++i) h[i] += x[i];
    } else {
      for (std::int64_t i = begin; i < end; ++i) h[i] += scale * x[i];
    }
  });
}

void clamp(const ExecContext& ctx, float* x, std::int64_t count, float limit) {
  ctx.threads.parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (x[i] < -limit) x[i] = -limit;
      if (x[i] > limit) x[i] = limit;
    }
  });
}

}  // namespace kedge
