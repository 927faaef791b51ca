// One block: norm, mixer, residual.
#include <variant>

#include <fmt/format.h>

#include "base/check.h"
#include "kedge/error.h"
#include "model/checkpoint_source.h"
#include "model/decoder.h"
#include "model/segments.h"
#include "model/sequence_state.h"
#include "moe/moe_block.h"
#include "moe/reconstruction_weights.h"
#include "nn/attention.h"
#include "nn/elementwise.h"
#include "nn/mla.h"
#include "nn/mlp.h"
#include "nn/probe.h"
#include "nn/rms_norm.h"

namespace kedge {

struct Block::Impl {
  std::size_t index = 0;
  std::int64_t hidden_size = 0;
  int layer = 0;
  float residual_scale = 1.0f;
  RmsNorm norm;
  std::variant<std::monostate, AttentionModule, MlaModule, MlpModule, MoeBlock, ReconstructionMoeBlock> mixer;
};

namespace {

/// What build() needs to make any mixer.
struct MixerLoader {
  const WeightSource& source;
  std::string layer;  ///< "model.layers.0"
  const ModelSpec& spec;
  const LoadOptions& options;
  ThreadPool* threads;

  AttentionModule operator()(const Attention& a) const {
    return AttentionModule::load(source, layer + ".self_attn", a, spec.hidden_size, spec.rms_norm_eps, options);
  }
  MlaModule operator()(const Mla& a) const {
    return MlaModule::load(source, layer + ".self_attn", a, spec.hidden_size, options);
  }
  MlpModule operator()(const Mlp& m) const {
    return MlpModule::load(source, layer + ".mlp", m, spec.hidden_size, options);
  }
  MoeBlock operator()(const Moe& m) const {
    return MoeBlock::load(source, layer + ".mlp", m, spec.hidden_size, options, threads);
  }
  ReconstructionMoeBlock operator()(const ReconstructionMoe& m) const {
    return load_reconstruction_moe(source, layer + ".mlp", m, options);
  }
};

struct MixerForward {
  const ExecContext& ctx;
  int layer;
  const float* x;
  std::int64_t rows;
  std::span<const SegmentRows> segments;
  float* y;

  void operator()(const AttentionModule& m) const { m.forward(ctx, x, rows, segments, y); }
  void operator()(const MlaModule& m) const { m.forward(ctx, x, rows, segments, y); }
  void operator()(const MlpModule& m) const { m.forward(ctx, x, rows, y); }
  void operator()(const MoeBlock& m) const { m.forward(ctx, layer, x, rows, y); }
  void operator()(const ReconstructionMoeBlock& m) const { m.forward(ctx, layer, x, rows, y); }
  void operator()(std::monostate) const { KEDGE_CHECK(!"a block without a mixer"); }
};

/// Lines of the distinct weights: blocks of a kind repeat the same ones.
template <class Module>
std::string explain_linears(const Module& module) {
  std::string out;
  module.each_linear([&](const char* name, const Linear& linear) {
    out += fmt::format("{}: {}\n", name, explain_gemm(linear.weight().desc(), linear.weight().options_, 1));
  });
  return out;
}

}  // namespace

std::int64_t count_rows(std::span<const Segment> segments) {
  std::int64_t rows = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    KEDGE_CHECK(segment.state != nullptr);
    for (std::size_t other = 0; other < s; ++other) KEDGE_CHECK(segments[other].state != segment.state);
    const auto tokens = static_cast<std::int64_t>(segment.tokens.size());
    const std::int64_t free = segment.state->capacity() - segment.state->length();
    if (tokens > free) {
      throw Error(ErrorCode::usage,
                  fmt::format("{} tokens do not fit a context of {} that already holds {}", tokens,
                              segment.state->capacity(), segment.state->length()),
                  "a text that fits the context", "shorten it or ask for a longer context");
    }
    rows += tokens;
  }
  return rows;
}

Block::Block() : impl_(std::make_unique<Impl>()) {}
Block::~Block() = default;

std::unique_ptr<Block> Block::load(const Checkpoint& checkpoint, const ModelSpec& spec, int block,
                                   const LoadOptions& options) {
  return build(CheckpointSource(checkpoint, spec), spec, block, options, nullptr);
}

std::unique_ptr<Block> Block::build(const WeightSource& source, const ModelSpec& spec, int block,
                                    const LoadOptions& options, ThreadPool* threads) {
  KEDGE_CHECK(block >= 0 && static_cast<std::size_t>(block) < spec.blocks.size());
  const BlockSpec& block_spec = spec.blocks[static_cast<std::size_t>(block)];
  const std::string layer = fmt::format("model.layers.{}", block_spec.source_layer);
  std::unique_ptr<Block> out(new Block());
  Impl& impl = *out->impl_;
  impl.index = static_cast<std::size_t>(block);
  impl.hidden_size = spec.hidden_size;
  impl.layer = block_spec.source_layer;
  impl.residual_scale = block_spec.residual_scale;
  impl.norm =
      RmsNorm::load(source, layer + "." + block_spec.pre_norm, spec.hidden_size, spec.rms_norm_eps, options.isa);
  const MixerLoader loader{source, layer, spec, options, threads};
  std::visit([&](const auto& mixer) { impl.mixer = loader(mixer); }, block_spec.mixer);
  return out;
}

void Block::forward(const ExecContext& ctx, float* h, std::span<const Segment> segments) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t rows = count_rows(segments);
  if (rows == 0) return;
  SegmentRows* placed = ctx.scratch.take<SegmentRows>(static_cast<std::int64_t>(segments.size()));
  std::int64_t begin = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    SequenceState::Impl& state = segments[s].state->impl();
    KEDGE_CHECK(impl_->index < state.kv.size());
    const auto tokens = static_cast<std::int64_t>(segments[s].tokens.size());
    placed[s] = {begin, tokens, state.length, &state.kv[impl_->index], state.rope[impl_->index]};
    begin += tokens;
  }
  float* x = ctx.scratch.take<float>(rows * impl_->hidden_size);
  float* y = ctx.scratch.take<float>(rows * impl_->hidden_size);
  impl_->norm.forward(ctx, h, rows, x);
  std::visit(MixerForward{ctx, impl_->layer, x, rows, {placed, segments.size()}, y}, impl_->mixer);
  if (is_complete(ctx.probe)) return;
  add_scaled(ctx, h, y, rows * impl_->hidden_size, impl_->residual_scale);
}

void Block::observe_routing(const ExecContext& ctx, const float* h, std::int64_t rows) const {
  ArenaScope scope(ctx.scratch);
  float* x = ctx.scratch.take<float>(rows * impl_->hidden_size);
  impl_->norm.forward(ctx, h, rows, x);
  if (const auto* by_error = std::get_if<ReconstructionMoeBlock>(&impl_->mixer)) {
    by_error->observe_routing(ctx, impl_->layer, x, rows);
    return;
  }
  const auto* moe = std::get_if<MoeBlock>(&impl_->mixer);
  KEDGE_CHECK(moe != nullptr);
  moe->observe_routing(ctx, impl_->layer, x, rows);
}

std::size_t Block::num_bytes() const noexcept {
  std::size_t bytes = impl_->norm.num_bytes();
  if (const auto* m = std::get_if<AttentionModule>(&impl_->mixer)) bytes += m->num_bytes();
  if (const auto* m = std::get_if<MlaModule>(&impl_->mixer)) bytes += m->num_bytes();
  if (const auto* m = std::get_if<MlpModule>(&impl_->mixer)) bytes += m->num_bytes();
  if (const auto* m = std::get_if<MoeBlock>(&impl_->mixer)) bytes += m->num_bytes();
  if (const auto* m = std::get_if<ReconstructionMoeBlock>(&impl_->mixer)) bytes += m->num_bytes();
  return bytes;
}

std::size_t Block::active_bytes() const noexcept {
  const std::size_t norm = impl_->norm.num_bytes();
  if (const auto* m = std::get_if<MoeBlock>(&impl_->mixer)) return norm + m->active_bytes();
  if (const auto* m = std::get_if<ReconstructionMoeBlock>(&impl_->mixer)) return norm + m->active_bytes();
  return num_bytes();
}

std::string Block::explain() const {
  if (const auto* m = std::get_if<AttentionModule>(&impl_->mixer)) return explain_linears(*m);
  if (const auto* m = std::get_if<MlaModule>(&impl_->mixer)) return explain_linears(*m);
  if (const auto* m = std::get_if<MlpModule>(&impl_->mixer)) return explain_linears(*m);
  if (const auto* m = std::get_if<ReconstructionMoeBlock>(&impl_->mixer)) return m->explain();
  return std::get<MoeBlock>(impl_->mixer).explain(1);
}

}  // namespace kedge
