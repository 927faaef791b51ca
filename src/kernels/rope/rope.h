// Rotary position embedding (RoFormer; the two pairings of Hugging Face).
//   half:        (x[i], x[i + d/2]) rotated by angle i
//   interleaved: (x[2i], x[2i + 1]) rotated by angle i; the output is written de-interleaved (first halves, then
//                second halves), as DeepSeek's rope_interleave does: scores do not change, q and k agree.
// Angles are fp32 position * inv_freq[i], cos and sin of that computed in double and rounded, times attention_factor.
// (a, b) -> (a cos - b sin, b cos + a sin), two products and one addition each, not fused.
#pragma once

#include <cstdint>
#include <vector>

#include "base/exec.h"

namespace kedge {

/// cos and sin for positions [0, max_position), grown on demand.
class RopeTable {
 public:
  RopeTable() = default;
  /// inv_freq: [rotary_dim / 2]
  RopeTable(std::vector<float> inv_freq, float attention_factor);
  /// Makes positions [0, positions) available. Not while another thread reads the table.
  void reserve(std::int64_t positions);
  std::int64_t positions() const noexcept { return positions_; }
  std::int64_t half_dim() const noexcept { return static_cast<std::int64_t>(inv_freq_.size()); }
  const float* cos(std::int64_t position) const noexcept { return cos_.data() + position * half_dim(); }
  const float* sin(std::int64_t position) const noexcept { return sin_.data() + position * half_dim(); }

 private:
  std::vector<float> inv_freq_, cos_, sin_;
  float attention_factor_ = 1.0f;
  std::int64_t positions_ = 0;
};

/// x: [T, heads, head_dim] with token stride ldx (heads contiguous); rotates dims [offset, offset + 2 * half_dim) of
/// each head in place. positions: [T], each below table.positions(). Takes scratch only when interleaved.
void rope(const ExecContext& ctx, float* x, std::int64_t ldx, std::int64_t tokens, std::int64_t heads,
          std::int64_t head_dim, std::int64_t offset, const std::int32_t* positions, const RopeTable& table,
          bool interleaved, Isa isa);

}  // namespace kedge
