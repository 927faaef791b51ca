// Rotary embeddings on tensors: the angles of nn/rope_frequencies.h, the pairings of kernels/rope/rope.h.
#pragma once

#include "nn/mixers.h"
#include "twin/options.h"

namespace kedge::twin {

/// cos and sin of positions [0, T), grown on demand.
class RopeAngles {
 public:
  RopeAngles(const RopeSpec& spec, const Options& options) : spec_(spec), options_(options) {}
  void reserve(std::int64_t positions);
  Tensor cos(std::int64_t positions) const { return cos_.narrow(0, 0, positions); }  ///< [T, rotary_dim / 2]
  Tensor sin(std::int64_t positions) const { return sin_.narrow(0, 0, positions); }
  bool interleaved() const noexcept { return spec_.interleaved; }
  std::int64_t rotary_dim() const noexcept { return spec_.rotary_dim; }

 private:
  RopeSpec spec_;
  Options options_;
  Tensor cos_, sin_;
};

/// x: [B, T, heads, dim], token t at position t; dims [offset, offset + rotary_dim) of each head rotate. In the
/// options' dtype. Interleaved pairs come out de-interleaved, as in kernels/rope.
Tensor rotate(const Tensor& x, const RopeAngles& angles, std::int64_t offset);

}  // namespace kedge::twin
