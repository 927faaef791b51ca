#include "nn/attention.h"

#include <cmath>
#include <cstring>

#include "kernels/attention/attention.h"
#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {
namespace {

/// rows [tokens, kv_heads, dim] into the cache's positions.
void append(const ExecContext& ctx, const SegmentRows& segment, const float* k, const float* v) {
  KvCache& cache = *segment.kv;
  ctx.threads.parallel_for(segment.tokens, 32, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* k_row = k + t * cache.kv_heads * cache.head_dim;
      const float* v_row = v + t * cache.kv_heads * cache.value_dim;
      for (std::int64_t head = 0; head < cache.kv_heads; ++head) {
        std::memcpy(cache.k(head, segment.start + t), k_row + head * cache.head_dim,
                    static_cast<std::size_t>(cache.head_dim) * sizeof(float));
        std::memcpy(cache.v(head, segment.start + t), v_row + head * cache.value_dim,
                    static_cast<std::size_t>(cache.value_dim) * sizeof(float));
      }
    }
  });
}

}  // namespace

AttentionModule AttentionModule::load(const WeightSource& source, const std::string& prefix, const Attention& spec,
                                      std::int64_t hidden_size, float norm_eps, const LoadOptions& options) {
  AttentionModule module;
  module.spec_ = spec;
  module.isa_ = options.isa;
  const std::int64_t q_size = spec.num_attention_heads * spec.head_dim;
  const std::int64_t kv_size = spec.num_key_value_heads * spec.head_dim;
  module.q_proj_ = Linear::load(source, prefix + ".q_proj", q_size, hidden_size, spec.qkv_bias, options);
  module.k_proj_ = Linear::load(source, prefix + ".k_proj", kv_size, hidden_size, spec.qkv_bias, options);
  module.v_proj_ = Linear::load(source, prefix + ".v_proj", kv_size, hidden_size, spec.qkv_bias, options);
  module.o_proj_ = Linear::load(source, prefix + ".o_proj", hidden_size, q_size, spec.o_bias, options);
  if (spec.qk_norm != QkNorm::none) {
    const bool per_head = spec.qk_norm == QkNorm::per_head;
    module.q_norm_ =
        RmsNorm::load(source, prefix + ".q_norm", per_head ? spec.head_dim : q_size, norm_eps, options.isa);
    module.k_norm_ =
        RmsNorm::load(source, prefix + ".k_norm", per_head ? spec.head_dim : kv_size, norm_eps, options.isa);
  }
  return module;
}

void AttentionModule::forward(const ExecContext& ctx, const float* x, std::int64_t rows,
                              std::span<const SegmentRows> segments, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t heads = spec_.num_attention_heads, kv_heads = spec_.num_key_value_heads, dim = spec_.head_dim;
  const std::int64_t q_size = heads * dim, kv_size = kv_heads * dim;
  float* q = ctx.scratch.take<float>(rows * q_size);
  float* k = ctx.scratch.take<float>(rows * kv_size);
  float* v = ctx.scratch.take<float>(rows * kv_size);
  float* out = ctx.scratch.take<float>(rows * q_size);
  q_proj_.forward(ctx, x, rows, q);
  k_proj_.forward(ctx, x, rows, k);
  v_proj_.forward(ctx, x, rows, v);
  if (is_complete(ctx.probe)) return;
  if (spec_.qk_norm != QkNorm::none) {
    // Per head and full differ only in where a row ends.
    q_norm_.forward(ctx, q, rows * q_size / q_norm_.size(), q);
    k_norm_.forward(ctx, k, rows * kv_size / k_norm_.size(), k);
  }
  if (spec_.clip_qkv) {
    clamp(ctx, q, rows * q_size, *spec_.clip_qkv);
    clamp(ctx, k, rows * kv_size, *spec_.clip_qkv);
    clamp(ctx, v, rows * kv_size, *spec_.clip_qkv);
  }

  AttentionDesc desc;
  desc.num_heads = heads;
  desc.num_key_value_heads = kv_heads;
  desc.head_dim = desc.value_dim = dim;
  desc.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
  desc.sliding_window = spec_.sliding_window;
  desc.causal = spec_.causal;
  for (const SegmentRows& segment : segments) {
    if (segment.tokens == 0) continue;
    ArenaScope segment_scope(ctx.scratch);
    std::int32_t* positions = ctx.scratch.take<std::int32_t>(segment.tokens);
    for (std::int64_t t = 0; t < segment.tokens; ++t) positions[t] = static_cast<std::int32_t>(segment.start + t);
    float* q_rows = q + segment.begin * q_size;
    float* k_rows = k + segment.begin * kv_size;
    rope(ctx, q_rows, q_size, segment.tokens, heads, dim, 0, positions, *segment.rope, spec_.rope.interleaved, isa_);
    rope(ctx, k_rows, kv_size, segment.tokens, kv_heads, dim, 0, positions, *segment.rope, spec_.rope.interleaved,
         isa_);
    append(ctx, segment, k_rows, v + segment.begin * kv_size);
    attention(ctx, desc, q_rows, segment.tokens, segment.start, segment.kv->keys.as<float>(),
              segment.kv->values.as<float>(), segment.kv->capacity, out + segment.begin * q_size, isa_);
  }
  o_proj_.forward(ctx, out, rows, y);
}

std::size_t AttentionModule::num_bytes() const noexcept {
  return q_proj_.num_bytes() + k_proj_.num_bytes() + v_proj_.num_bytes() + o_proj_.num_bytes() + q_norm_.num_bytes() +
         k_norm_.num_bytes();
}

}  // namespace kedge
