#include "kernels/rope/rope.h"

#include <algorithm>

#include "kernels/vec/math.h"
#include "kernels/vec/table.h"

namespace kedge {
namespace {
constexpr std::int64_t kElementsPerTask = 16384;  ///< below this a task costs less than waking a thread
}  // namespace

RopeTable::RopeTable(std::vector<float> inv_freq, float attention_factor)
    : inv_freq_(std::move(inv_freq)), attention_factor_(attention_factor) {}

void RopeTable::reserve(std::int64_t positions) {
  if (positions <= positions_) return;
  const auto size = static_cast<std::size_t>(positions * half_dim());
  cos_.resize(size);
  sin_.resize(size);
  for (std::int64_t p = positions_; p < positions; ++p) {
    for (std::int64_t i = 0; i < half_dim(); ++i) {
      const auto at = static_cast<std::size_t>(p * half_dim() + i);
      const double angle = static_cast<float>(p) * inv_freq_[static_cast<std::size_t>(i)];
      cos_[at] = static_cast<float>(math::cos(angle)) * attention_factor_;
      sin_[at] = static_cast<float>(math::sin(angle)) * attention_factor_;
    }
  }
  positions_ = positions;
}

void rope(const ExecContext& ctx, float* x, std::int64_t ldx, std::int64_t tokens, std::int64_t heads,
          std::int64_t head_dim, std::int64_t offset, const std::int32_t* positions, const RopeTable& table,
          bool interleaved, Isa isa) {
  const ElementwiseKernels& kernels = elementwise_kernels(isa);
  const std::int64_t half = table.half_dim();
  ArenaScope scope(ctx.scratch);
  float* scratch = interleaved ? ctx.scratch.take<float>(2 * half * ctx.threads.size()) : nullptr;

  const auto run = [&](std::int64_t begin, std::int64_t end, int thread) {
    float* halves = interleaved ? scratch + 2 * half * thread : nullptr;
    for (std::int64_t t = begin; t < end; ++t) {
      const float* cos = table.cos(positions[t]);
      const float* sin = table.sin(positions[t]);
      for (std::int64_t h = 0; h < heads; ++h) {
        float* row = x + t * ldx + h * head_dim + offset;
        const float* src = row;
        if (interleaved) {
          for (std::int64_t i = 0; i < half; ++i) {
            halves[i] = row[2 * i];
            halves[half + i] = row[2 * i + 1];
          }
          src = halves;
        }
        kernels.rotate(src, row, cos, sin, half);
      }
    }
  };
  const std::int64_t per_token = std::max<std::int64_t>(1, heads * 2 * half);
  const std::int64_t grain = std::max<std::int64_t>(1, kElementsPerTask / per_token);
  if (tokens <= grain) {
    run(0, tokens, 0);
  } else {
    ctx.threads.parallel_for(tokens, grain, run);
  }
}

}  // namespace kedge
