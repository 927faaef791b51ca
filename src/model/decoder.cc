#include "model/decoder.h"

#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "base/check.h"
#include "kedge/error.h"
#include "model/checkpoint_source.h"
#include "model/family.h"
#include "model/random_source.h"
#include "model/segments.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/probe.h"
#include "nn/rms_norm.h"

namespace kedge {

struct DecoderModel::Impl {
  ModelSpec spec;
  LoadOptions options;
  Embedding embedding;
  std::vector<std::unique_ptr<Block>> blocks;
  RmsNorm norm;
  Linear lm_head;

  void run_layers(const ExecContext& ctx, std::span<const Segment> segments, std::int64_t rows, float* h) const;
};

namespace {

constexpr const char* kEmbedding = "model.embed_tokens";

std::int64_t largest_matrix(const ModelSpec& spec) {
  std::int64_t largest = spec.vocab_size * spec.hidden_size;
  for (const LinearRef& linear : list_linears(spec, model_families().front())) {
    largest = std::max(largest, linear.rows * linear.cols);
  }
  return largest;
}

void check_tokens(std::span<const Segment> segments, std::int64_t vocab_size) {
  for (const Segment& segment : segments) {
    for (const std::int32_t token : segment.tokens) {
      if (token < 0 || token >= vocab_size) {
        throw Error(ErrorCode::usage, fmt::format("token {} is outside the vocabulary", token),
                    fmt::format("ids from 0 to {}", vocab_size - 1));
      }
    }
  }
}

bool wants(const ExecContext& ctx, Site site) { return ctx.probe != nullptr && ctx.probe->wants(site); }

/// The last row of each segment, gathered from h [rows, size].
void gather_last_rows(std::span<const Segment> segments, const float* h, std::int64_t size, float* out) {
  std::int64_t end = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    end += static_cast<std::int64_t>(segments[s].tokens.size());
    std::memcpy(out + static_cast<std::int64_t>(s) * size, h + (end - 1) * size,
                static_cast<std::size_t>(size) * sizeof(float));
  }
}

}  // namespace

DecoderModel::DecoderModel() : impl_(std::make_unique<Impl>()) {}
DecoderModel::~DecoderModel() = default;
DecoderModel::DecoderModel(DecoderModel&&) noexcept = default;

DecoderModel DecoderModel::build(const WeightSource& source, ModelSpec spec, const LoadOptions& options,
                                 ThreadPool& threads) {
  DecoderModel model;
  Impl& impl = *model.impl_;
  impl.spec = std::move(spec);
  impl.options = options;
  const std::int64_t vocab = impl.spec.vocab_size, hidden = impl.spec.hidden_size;
  impl.embedding = Embedding::load(source, kEmbedding, vocab, hidden);
  for (std::size_t b = 0; b < impl.spec.blocks.size(); ++b) {
    impl.blocks.push_back(Block::build(source, impl.spec, static_cast<int>(b), options, &threads));
  }
  impl.norm = RmsNorm::load(source, "model.norm", hidden, impl.spec.rms_norm_eps, options.isa);
  const char* head = impl.spec.tie_word_embeddings ? kEmbedding : "lm_head";
  impl.lm_head = Linear::load(source, head, vocab, hidden, false, options);
  return model;
}

DecoderModel DecoderModel::load(const Checkpoint& checkpoint, const LoadOptions& options, ThreadPool& threads) {
  ModelSpec spec = model_spec(checkpoint);
  const CheckpointSource source(checkpoint, spec);
  return build(source, std::move(spec), options, threads);
}

DecoderModel DecoderModel::random(const ModelSpec& spec, const std::string& scheme, std::uint64_t seed,
                                  const LoadOptions& options, ThreadPool& threads) {
  return build(RandomSource(scheme, seed, largest_matrix(spec)), spec, options, threads);
}

const ModelSpec& DecoderModel::spec() const noexcept { return impl_->spec; }
const LoadOptions& DecoderModel::options() const noexcept { return impl_->options; }

void DecoderModel::embed(const ExecContext& ctx, std::span<const Segment> segments, float* h) const {
  check_tokens(segments, impl_->spec.vocab_size);
  for (const Segment& segment : segments) {
    impl_->embedding.forward(ctx, segment.tokens, h);
    h += static_cast<std::int64_t>(segment.tokens.size()) * impl_->spec.hidden_size;
  }
}

void DecoderModel::forward_layer(const ExecContext& ctx, int layer, std::span<const Segment> segments, float* h) const {
  KEDGE_CHECK(layer >= 0 && layer < impl_->spec.num_hidden_layers);
  for (std::size_t b = 0; b < impl_->blocks.size(); ++b) {
    if (impl_->spec.blocks[b].source_layer == layer) impl_->blocks[b]->forward(ctx, h, segments);
  }
}

void DecoderModel::Impl::run_layers(const ExecContext& ctx, std::span<const Segment> segments, std::int64_t rows,
                                    float* h) const {
  const bool report = wants(ctx, Site::hidden_state);
  if (report) ctx.probe->hidden_state(0, rows, spec.hidden_size, h);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    blocks[b]->forward(ctx, h, segments);
    // The last layer's output is reported after the final norm, by forward().
    const bool ends_layer = b + 1 < blocks.size() && spec.blocks[b + 1].source_layer != spec.blocks[b].source_layer;
    if (report && ends_layer) ctx.probe->hidden_state(spec.blocks[b + 1].source_layer, rows, spec.hidden_size, h);
  }
}

void DecoderModel::forward(const ExecContext& ctx, std::span<const Segment> segments, LogitRows rows,
                           float* logits) const {
  KEDGE_CHECK(rows == LogitRows::none || logits != nullptr);
  const std::int64_t total = count_rows(segments), hidden = impl_->spec.hidden_size;
  check_tokens(segments, impl_->spec.vocab_size);
  for (const Segment& segment : segments) {
    KEDGE_CHECK(rows != LogitRows::last_of_each_segment || !segment.tokens.empty());
    KEDGE_CHECK(!impl_->spec.is_masked_diffusion() || segment.state->length() == 0);  // tokens see those behind them
  }
  if (total == 0) return;

  ArenaScope scope(ctx.scratch);
  float* h = ctx.scratch.take<float>(total * hidden);
  embed(ctx, segments, h);
  impl_->run_layers(ctx, segments, total, h);
  for (const Segment& segment : segments) segment.state->advance(static_cast<std::int64_t>(segment.tokens.size()));

  const bool report = wants(ctx, Site::hidden_state);
  const bool all = rows == LogitRows::all;
  if (all || report) {
    impl_->norm.forward(ctx, h, total, h);
    if (report) ctx.probe->hidden_state(impl_->spec.num_hidden_layers, total, hidden, h);
  }
  if (rows == LogitRows::none) return;
  const std::int64_t count = all ? total : static_cast<std::int64_t>(segments.size());
  const float* x = h;
  if (!all) {
    float* last = ctx.scratch.take<float>(count * hidden);
    gather_last_rows(segments, h, hidden, last);
    if (!report) impl_->norm.forward(ctx, last, count, last);
    x = last;
  }
  impl_->lm_head.forward(ctx, x, count, logits);
  if (wants(ctx, Site::logits)) ctx.probe->logits(count, impl_->spec.vocab_size, logits);
}

std::size_t DecoderModel::num_bytes() const noexcept {
  std::size_t bytes = impl_->embedding.num_bytes() + impl_->norm.num_bytes() + impl_->lm_head.num_bytes();
  for (const auto& block : impl_->blocks) bytes += block->num_bytes();
  return bytes;
}

std::size_t DecoderModel::active_bytes_per_token() const noexcept {
  std::size_t bytes = impl_->norm.num_bytes() + impl_->lm_head.num_bytes();
  for (const auto& block : impl_->blocks) bytes += block->active_bytes();
  return bytes;
}

std::string DecoderModel::explain() const {
  // Layers of one kind say the same; each text once, with the first layer that says it.
  std::set<std::string> seen;
  std::string out;
  for (std::size_t b = 0; b < impl_->blocks.size(); ++b) {
    const std::string text = impl_->blocks[b]->explain();
    if (!seen.insert(text).second) continue;
    out += fmt::format("from layer {}:\n{}", impl_->spec.blocks[b].source_layer, text);
    if (!out.ends_with('\n')) out += '\n';
  }
  out += "lm_head: " + explain_gemm(impl_->lm_head.weight().desc(), impl_->options, 1) + "\n";
  return out;
}

}  // namespace kedge
