// Multi-head latent attention (DeepSeek-V2 section 2.1, arXiv 2405.04434) as a module.
//
//   q = q_proj x, or q_b_proj norm(q_a_proj x);  per head [nope | rope]
//   kv_a_proj_with_mqa x = [latent (kv_lora_rank) | rope part of k, shared by all heads]
//   kv_b_proj norm(latent) = per head [k_nope | v]
// The cache holds the expanded keys (nope, then rotated rope) and values of every head, so that the common attention
// kernel serves. Memory per token and block: heads * (qk_nope + qk_rope + v) floats, instead of kv_lora_rank + qk_rope
// of the absorbed form (DeepSeek-V3: 71 times as much); the choice depends on the spec alone, never on the number of
// tokens.
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

class MlaModule {
 public:
  /// prefix: "model.layers.0.self_attn".
  static MlaModule load(const WeightSource& source, const std::string& prefix, const Mla& spec,
                        std::int64_t hidden_size, const LoadOptions& options);
  /// As AttentionModule::forward.
  void forward(const ExecContext& ctx, const float* x, std::int64_t rows, std::span<const SegmentRows> segments,
               float* y) const;
  std::size_t num_bytes() const noexcept;
  template <class F>
  void each_linear(F&& f) const {
    if (spec_.q_lora_rank == 0) {
      f("q_proj", q_proj_);
    } else {
      f("q_a_proj", q_a_proj_);
      f("q_b_proj", q_b_proj_);
    }
    f("kv_a_proj_with_mqa", kv_a_proj_);
    f("kv_b_proj", kv_b_proj_);
    f("o_proj", o_proj_);
  }

 private:
  void project_queries(const ExecContext& ctx, const float* x, std::int64_t rows, float* q) const;
  void append(const ExecContext& ctx, const SegmentRows& segment, const float* kv, const float* k_rope,
              std::int64_t ld_rope) const;

  Mla spec_;
  Linear q_proj_, q_a_proj_, q_b_proj_, kv_a_proj_, kv_b_proj_, o_proj_;
  RmsNorm q_a_norm_, kv_a_norm_;
  float scale_ = 1.0f;
  Isa isa_ = Isa::scalar;
};

}  // namespace kedge
