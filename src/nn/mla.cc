#include "nn/mla.h"

#include <cstring>

#include "kernels/attention/attention.h"
#include "nn/probe.h"
#include "nn/rope_frequencies.h"

namespace kedge {
namespace {

// transformers builds the norms of the latents with its default, not with the config's rms_norm_eps.
constexpr float kLatentNormEps = 1e-6f;

}  // namespace

MlaModule MlaModule::load(const WeightSource& source, const std::string& prefix, const Mla& spec,
                          std::int64_t hidden_size, const LoadOptions& options) {
  MlaModule m;
  m.spec_ = spec;
  m.isa_ = options.isa;
  m.scale_ = mla_softmax_scale(spec);
  const std::int64_t heads = spec.num_attention_heads;
  const std::int64_t q_size = heads * (spec.qk_nope_head_dim + spec.qk_rope_head_dim);
  if (spec.q_lora_rank == 0) {
    m.q_proj_ = Linear::load(source, prefix + ".q_proj", q_size, hidden_size, false, options);
  } else {
    m.q_a_proj_ = Linear::load(source, prefix + ".q_a_proj", spec.q_lora_rank, hidden_size, spec.bias, options);
    m.q_a_norm_ = RmsNorm::load(source, prefix + ".q_a_layernorm", spec.q_lora_rank, kLatentNormEps, options.isa);
    m.q_b_proj_ = Linear::load(source, prefix + ".q_b_proj", q_size, spec.q_lora_rank, false, options);
  }
  m.kv_a_proj_ = Linear::load(source, prefix + ".kv_a_proj_with_mqa", spec.kv_lora_rank + spec.qk_rope_head_dim,
                              hidden_size, spec.bias, options);
  m.kv_a_norm_ = RmsNorm::load(source, prefix + ".kv_a_layernorm", spec.kv_lora_rank, kLatentNormEps, options.isa);
  m.kv_b_proj_ = Linear::load(source, prefix + ".kv_b_proj", heads * (spec.qk_nope_head_dim + spec.v_head_dim),
                              spec.kv_lora_rank, false, options);
  m.o_proj_ = Linear::load(source, prefix + ".o_proj", hidden_size, heads * spec.v_head_dim, spec.bias, options);
  return m;
}

void MlaModule::project_queries(const ExecContext& ctx, const float* x, std::int64_t rows, float* q) const {
  if (spec_.q_lora_rank == 0) {
    q_proj_.forward(ctx, x, rows, q);
    return;
  }
  ArenaScope scope(ctx.scratch);
  float* latent = ctx.scratch.take<float>(rows * spec_.q_lora_rank);
  q_a_proj_.forward(ctx, x, rows, latent);
  if (is_complete(ctx.probe)) return;
  q_a_norm_.forward(ctx, latent, rows, latent);
  q_b_proj_.forward(ctx, latent, rows, q);
}

void MlaModule::append(const ExecContext& ctx, const SegmentRows& segment, const float* kv, const float* k_rope,
                       std::int64_t ld_rope) const {
  const std::int64_t heads = spec_.num_attention_heads, nope = spec_.qk_nope_head_dim, v_dim = spec_.v_head_dim;
  KvCache& cache = *segment.kv;
  ctx.threads.parallel_for(segment.tokens, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t head = 0; head < heads; ++head) {
        const float* row = kv + (t * heads + head) * (nope + v_dim);
        float* k = cache.k(head, segment.start + t);
        std::memcpy(k, row, static_cast<std::size_t>(nope) * sizeof(float));
        std::memcpy(k + nope, k_rope + t * ld_rope, static_cast<std::size_t>(spec_.qk_rope_head_dim) * sizeof(float));
        std::memcpy(cache.v(head, segment.start + t), row + nope, static_cast<std::size_t>(v_dim) * sizeof(float));
      }
    }
  });
}

void MlaModule::forward(const ExecContext& ctx, const float* x, std::int64_t rows,
                        std::span<const SegmentRows> segments, float* y) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t heads = spec_.num_attention_heads, nope = spec_.qk_nope_head_dim, rot = spec_.qk_rope_head_dim;
  const std::int64_t q_size = heads * (nope + rot), kv_size = heads * (nope + spec_.v_head_dim);
  const std::int64_t v_size = heads * spec_.v_head_dim;
  const std::int64_t rank = spec_.kv_lora_rank, a_size = rank + rot;
  float* q = ctx.scratch.take<float>(rows * q_size);
  float* kv_a = ctx.scratch.take<float>(rows * a_size);
  float* latent = ctx.scratch.take<float>(rows * rank);
  float* kv = ctx.scratch.take<float>(rows * kv_size);
  float* out = ctx.scratch.take<float>(rows * v_size);
  project_queries(ctx, x, rows, q);
  kv_a_proj_.forward(ctx, x, rows, kv_a);
  if (is_complete(ctx.probe)) return;
  kv_a_norm_.forward(ctx, kv_a, a_size, rows, latent, rank);
  kv_b_proj_.forward(ctx, latent, rows, kv);
  if (is_complete(ctx.probe)) return;

  AttentionDesc desc;
  desc.num_heads = desc.num_key_value_heads = heads;
  desc.head_dim = nope + rot;
  desc.value_dim = spec_.v_head_dim;
  desc.scale = scale_;
  desc.causal = spec_.causal;
  for (const SegmentRows& segment : segments) {
    if (segment.tokens == 0) continue;
    ArenaScope segment_scope(ctx.scratch);
    std::int32_t* positions = ctx.scratch.take<std::int32_t>(segment.tokens);
    for (std::int64_t t = 0; t < segment.tokens; ++t) positions[t] = static_cast<std::int32_t>(segment.start + t);
    float* q_rows = q + segment.begin * q_size;
    float* k_rope = kv_a + segment.begin * a_size + rank;
    rope(ctx, q_rows, q_size, segment.tokens, heads, nope + rot, nope, positions, *segment.rope, spec_.rope.interleaved,
         isa_);
    rope(ctx, k_rope, a_size, segment.tokens, 1, rot, 0, positions, *segment.rope, spec_.rope.interleaved, isa_);
    append(ctx, segment, kv + segment.begin * kv_size, k_rope, a_size);
    attention(ctx, desc, q_rows, segment.tokens, segment.start, segment.kv->keys.as<float>(),
              segment.kv->values.as<float>(), segment.kv->capacity, out + segment.begin * v_size, isa_);
  }
  o_proj_.forward(ctx, out, rows, y);
}

std::size_t MlaModule::num_bytes() const noexcept {
  std::size_t bytes = q_a_norm_.num_bytes() + kv_a_norm_.num_bytes();
  each_linear([&](const char*, const Linear& linear) { bytes += linear.num_bytes(); });
  return bytes;
}

}  // namespace kedge
