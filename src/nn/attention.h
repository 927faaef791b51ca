// Grouped-query attention as a module: projections, norms, clipping, rope, cache, kernel, output projection.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/exec.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/mixers.h"
#include "nn/rms_norm.h"

namespace kedge {

class AttentionModule {
 public:
  /// prefix: "model.layers.0.self_attn". norm_eps: of q_norm and k_norm.
  static AttentionModule load(const WeightSource& source, const std::string& prefix, const Attention& spec,
                              std::int64_t hidden_size, float norm_eps, const LoadOptions& options);
  /// x, y: [rows, H]. Projections take all rows at once, attention runs per segment. Keys and values are written to the
  /// segments' caches at start, start + 1, ...
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, std::span<const SegmentRows> segments,
               float* y) const;
  std::size_t num_bytes() const noexcept;
  template <class F>
  void each_linear(F&& f) const {
    f("q_proj", q_proj_);
    f("k_proj", k_proj_);
    f("v_proj", v_proj_);
    f("o_proj", o_proj_);
  }

 private:
  Attention spec_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_;
  RmsNorm q_norm_, k_norm_;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
