#include "ptq/layers/observer.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "comm/sum.h"
#include "kernels/gram/gram.h"
#include "moe/experts.h"
#include "moe/permutation.h"
#include "nn/rms_norm.h"

namespace kedge {
namespace {

using Kind = InputGroup::Kind;

const Moe* moe_of(const Observation& o) { return std::get_if<Moe>(&o.pass.spec().blocks[o.block].mixer); }

bool has_kind(const Wave& wave, Kind kind) {
  return std::any_of(wave.begin(), wave.end(), [&](const InputGroup& group) { return group.kind == kind; });
}

/// Rows of the original path minus rows of the quantized path, in place of the former.
void subtract(const ExecContext& ctx, float* original, const float* quantized, std::int64_t count) {
  ctx.threads.parallel_for(count, 65536, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) original[i] -= quantized[i];
  });
}

class WaveObserver {
 public:
  WaveObserver(const Observation& o, const Wave& wave);
  std::vector<InputStatistics> run();

 private:
  void add_chunk(const LayerPass::Chunk& chunk);
  void capture(const Block& block, const HiddenStates& states, const LayerPass::Chunk& chunk, Capture& into);
  void capture_original(const LayerPass::Chunk& chunk, Capture& into);
  /// Rows of one group's input; row_ids: which rows of x and difference, null: the first ones.
  struct Rows {
    const float* x = nullptr;
    const float* difference = nullptr;  ///< the original path's minus the quantized path's; null without cross
    const float* weights = nullptr;
    const std::int32_t* row_ids = nullptr;
    std::int64_t count = 0;
    const float* lost = nullptr;  ///< [count, N]: what the outputs should carry besides; null: nothing
  };
  void add_rows(std::size_t group, const Rows& rows);
  /// What the stream lost before the block [chunk rows, H], times the share to make up for; null where nobody asks.
  float* lost_before(const ExecContext& ctx, const LayerPass::Chunk& chunk) const;
  /// The same by pair [P, H]: a token's experts share it by their weights.
  float* lost_by_pair(const ExecContext& ctx, const float* lost, const Capture& quantized,
                      const TokenPermutation& permutation) const;
  void add_experts(const ExecContext& ctx, Capture& quantized, Capture* original, const float* lost);
  void add_starved(const ExecContext& ctx, Capture& quantized, Capture* original);
  void flush(const ExecContext& ctx);
  /// The original experts' intermediate rows for given inputs and pairs, into out [P, I].
  void intermediate_of(const ExecContext& ctx, const PackedExperts& experts, const float* x,
                       const TokenPermutation& permutation, float* out);

  const Observation& o_;
  const Wave& wave_;
  const Moe* moe_;
  std::vector<InputStatistics> statistics_;
  std::vector<std::size_t> starved_;  ///< groups of experts with too few tokens
  std::set<std::string, std::less<>> linears_;
  std::unique_ptr<Block> quantized_block_, original_block_;  ///< the latter is null where original_norm_ is enough
  std::optional<RmsNorm> original_norm_;                     ///< of a MoE block: experts are as large as all the rest
  PackedExperts original_experts_, quantized_experts_;
  std::vector<GramJob> jobs_;
  std::vector<float> h_;
};

WaveObserver::WaveObserver(const Observation& o, const Wave& wave) : o_(o), wave_(wave), moe_(moe_of(o)) {
  for (const InputGroup& group : wave) {
    const std::int64_t size = group.modules.front()->linear.cols;
    InputStatistics& statistics = statistics_.emplace_back();
    statistics.size = size;
    statistics.gram.resize(static_cast<std::size_t>(size * size));
    if (o.cross) statistics.cross.resize(static_cast<std::size_t>(size * size));
    if (o.residual && group.writes_residual) {
      statistics.residual.resize(static_cast<std::size_t>(group.modules.front()->linear.rows * size));
    }
    if (group.kind == Kind::linear) linears_.insert(group.observed);
  }
  quantized_block_ = o.pass.build(o.quantized_source, o.block);
  if (!o.cross) return;
  if (moe_ == nullptr || !linears_.empty()) {
    original_block_ = o.pass.build(o.input.source, o.block);
    return;
  }
  const ModelSpec& spec = o.pass.spec();
  const BlockSpec& block = spec.blocks[o.block];
  const std::string norm = "model.layers." + std::to_string(block.source_layer) + "." + block.pre_norm;
  original_norm_ = RmsNorm::load(o.input.source, norm, spec.hidden_size, spec.rms_norm_eps, o.pass.options().isa);
}

void WaveObserver::capture_original(const LayerPass::Chunk& chunk, Capture& into) {
  if (original_block_ != nullptr) {
    capture(*original_block_, o_.original, chunk, into);
    return;
  }
  h_.resize(static_cast<std::size_t>(chunk.rows * o_.original.hidden_size()));
  original_norm_->forward(o_.pass.context(), o_.original.row(chunk.first_row), chunk.rows, h_.data());
  into.moe_input(o_.input.layer, chunk.rows, o_.original.hidden_size(), h_.data());
}

void WaveObserver::capture(const Block& block, const HiddenStates& states, const LayerPass::Chunk& chunk,
                           Capture& into) {
  const float* h = states.row(chunk.first_row);
  h_.assign(h, h + chunk.rows * states.hidden_size());
  o_.pass.forward(block, chunk, h_.data(), &into);
}

void WaveObserver::add_rows(std::size_t group, const Rows& rows) {
  InputStatistics& s = statistics_[group];
  s.tokens += rows.count;
  if (rows.count == 0) return;
  const std::int64_t n = s.size;
  jobs_.push_back({rows.x, n, nullptr, 0, rows.weights, rows.row_ids, rows.count, n, n, s.gram.data(), n});
  if (rows.lost != nullptr && !s.residual.empty()) {
    const std::int64_t outputs = static_cast<std::int64_t>(s.residual.size()) / n;
    jobs_.push_back({rows.lost, outputs, rows.x, n, rows.weights, nullptr, rows.count, outputs, n, s.residual.data(), n});
  }
  if (!o_.cross) return;
  jobs_.push_back({rows.difference, n, rows.x, n, rows.weights, rows.row_ids, rows.count, n, n, s.cross.data(), n});
}

float* WaveObserver::lost_before(const ExecContext& ctx, const LayerPass::Chunk& chunk) const {
  const bool asked = std::any_of(statistics_.begin(), statistics_.end(), [](const auto& s) { return !s.residual.empty(); });
  if (!asked) return nullptr;
  const std::int64_t count = chunk.rows * o_.original.hidden_size();
  float* out = ctx.scratch.take<float>(count);
  const float *a = o_.original.row(chunk.first_row), *b = o_.quantized.row(chunk.first_row);
  const auto share = static_cast<float>(o_.input.recipe.parameters.residual_weight) /
                     o_.pass.spec().blocks[o_.block].residual_scale;
  for (std::int64_t i = 0; i < count; ++i) out[i] = share * (a[i] - b[i]);
  return out;
}

float* WaveObserver::lost_by_pair(const ExecContext& ctx, const float* lost, const Capture& quantized,
                                  const TokenPermutation& permutation) const {
  const std::int64_t hidden = quantized.moe.size, k = permutation.top_k;
  float* out = ctx.scratch.take<float>(permutation.tokens * k * hidden);
  ctx.threads.parallel_for(permutation.tokens, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* weights = quantized.expert_weights.data() + t * k;
      float squares = 0;  // the least change that makes up for it: least squares over the token's experts
      for (std::int64_t s = 0; s < k; ++s) squares += weights[s] * weights[s];
      for (std::int64_t s = 0; s < k; ++s) {
        float* to = out + permutation.pair_of[static_cast<std::size_t>(t * k + s)] * hidden;
        const float share = squares > 0 ? weights[s] / squares : 0;
        for (std::int64_t i = 0; i < hidden; ++i) to[i] = share * lost[t * hidden + i];
      }
    }
  });
  return out;
}

void WaveObserver::flush(const ExecContext& ctx) {
  gram(ctx, o_.pass.options().isa, jobs_);
  jobs_.clear();
}

void WaveObserver::intermediate_of(const ExecContext& ctx, const PackedExperts& experts, const float* x,
                                   const TokenPermutation& permutation, float* out) {
  ArenaScope scope(ctx.scratch);
  const ModelSpec& spec = o_.pass.spec();
  const ExpertFfnDesc desc{moe_->router.num_experts, spec.hidden_size, moe_->moe_intermediate_size, moe_->hidden_act};
  float* weights = ctx.scratch.take<float>(permutation.tokens * permutation.top_k);
  std::fill_n(weights, permutation.tokens * permutation.top_k, 1.0f);
  float* y = ctx.scratch.take<float>(permutation.tokens * spec.hidden_size);
  moe_ffn(ctx, x, permutation, weights, desc, experts, y, out);
}

void WaveObserver::add_experts(const ExecContext& ctx, Capture& quantized, Capture* original, const float* lost) {
  const bool down = has_kind(wave_, Kind::expert_intermediate);
  const std::int64_t tokens = quantized.moe.rows, hidden = quantized.moe.size, k = moe_->router.num_experts_per_tok;
  const TokenPermutation permutation =
      make_permutation(quantized.expert_ids.data(), tokens, k, moe_->router.num_experts, ctx.scratch);
  const std::int64_t pairs = tokens * k, size = down ? moe_->moe_intermediate_size : hidden;
  const float* x = down ? quantized.intermediate.values.data() : quantized.moe.values.data();
  float* difference = nullptr;
  if (original != nullptr) {
    const std::int64_t count = (down ? pairs : tokens) * size;
    difference = ctx.scratch.take<float>(count);
    if (down) {
      intermediate_of(ctx, original_experts_, original->moe.values.data(), permutation, difference);
    } else {
      std::copy_n(original->moe.values.data(), count, difference);
    }
    subtract(ctx, difference, x, count);
  }
  const float* lost_pairs = down && lost != nullptr ? lost_by_pair(ctx, lost, quantized, permutation) : nullptr;
  float* weights = nullptr;
  if (o_.input.recipe.parameters.gate_weighted) {
    weights = ctx.scratch.take<float>(pairs);
    for (std::int64_t i = 0; i < pairs; ++i) {
      weights[permutation.pair_of[static_cast<std::size_t>(i)]] = quantized.expert_weights[static_cast<std::size_t>(i)];
    }
  }
  for (std::size_t g = 0; g < wave_.size(); ++g) {
    if (wave_[g].expert < 0 || statistics_[g].all_tokens) continue;
    const std::int64_t begin = permutation.offsets[static_cast<std::size_t>(wave_[g].expert)];
    const std::int64_t end = permutation.offsets[static_cast<std::size_t>(wave_[g].expert) + 1];
    Rows rows{x, difference, weights == nullptr ? nullptr : weights + begin, nullptr, end - begin};
    if (down) {
      rows.x += begin * size;
      if (lost_pairs != nullptr) rows.lost = lost_pairs + begin * hidden;
      if (difference != nullptr) rows.difference += begin * size;
    } else {
      rows.row_ids = permutation.token.data() + begin;
    }
    add_rows(g, rows);
  }
}

// Experts with too few tokens: as if every token were routed to them.
void WaveObserver::add_starved(const ExecContext& ctx, Capture& quantized, Capture* original) {
  const auto count = static_cast<std::int64_t>(starved_.size());
  if (count == 0) return;
  const std::int64_t tokens = quantized.moe.rows, hidden = quantized.moe.size;
  const bool down = has_kind(wave_, Kind::expert_intermediate);
  if (!down) {
    float* difference = nullptr;
    if (original != nullptr) {
      difference = ctx.scratch.take<float>(tokens * hidden);
      std::copy_n(original->moe.values.data(), tokens * hidden, difference);
      subtract(ctx, difference, quantized.moe.values.data(), tokens * hidden);
    }
    for (const std::size_t g : starved_) add_rows(g, {quantized.moe.values.data(), difference, nullptr, nullptr, tokens});
    return;
  }
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (const std::size_t g : starved_) ids.push_back(wave_[g].expert);
  }
  const TokenPermutation permutation =
      make_permutation(ids.data(), tokens, count, moe_->router.num_experts, ctx.scratch);
  const std::int64_t size = moe_->moe_intermediate_size;
  float* x = ctx.scratch.take<float>(tokens * count * size);
  intermediate_of(ctx, quantized_experts_, quantized.moe.values.data(), permutation, x);
  float* difference = nullptr;
  if (original != nullptr) {
    difference = ctx.scratch.take<float>(tokens * count * size);
    intermediate_of(ctx, original_experts_, original->moe.values.data(), permutation, difference);
    subtract(ctx, difference, x, tokens * count * size);
  }
  for (const std::size_t g : starved_) {
    const std::int64_t begin = permutation.offsets[static_cast<std::size_t>(wave_[g].expert)];
    const float* rows_difference = difference == nullptr ? nullptr : difference + begin * size;
    add_rows(g, {x + begin * size, rows_difference, nullptr, nullptr, tokens});
  }
}

void WaveObserver::add_chunk(const LayerPass::Chunk& chunk) {
  const unsigned of_both = moe_ != nullptr ? static_cast<unsigned>(Site::moe_input) : 0;
  unsigned sites = of_both;  // the original's intermediate rows are wanted for the quantized path's choices
  if (moe_ != nullptr) sites |= static_cast<unsigned>(Site::routing);
  if (has_kind(wave_, Kind::expert_intermediate)) sites |= static_cast<unsigned>(Site::expert_intermediate);
  Capture quantized(linears_, sites, Capture::Pass::until_complete);
  Capture original(linears_, of_both, Capture::Pass::until_complete);
  capture(*quantized_block_, o_.quantized, chunk, quantized);
  if (o_.cross) capture_original(chunk, original);
  Capture* other = o_.cross ? &original : nullptr;

  const ExecContext ctx = o_.pass.context();
  ArenaScope scope(ctx.scratch);
  const float* lost = lost_before(ctx, chunk);
  if (moe_ != nullptr && (has_kind(wave_, Kind::expert) || has_kind(wave_, Kind::expert_intermediate))) {
    add_experts(ctx, quantized, other, lost);
    add_starved(ctx, quantized, other);
  }
  for (std::size_t g = 0; g < wave_.size(); ++g) {
    const InputGroup& group = wave_[g];
    if (group.expert >= 0) continue;
    const bool linear = group.kind == Kind::linear;
    const auto rows_of = [&](const Capture& capture) -> const Capture::Rows& {
      if (!linear) return capture.moe;
      const auto at = capture.inputs.find(group.observed);
      KEDGE_CHECK(at != capture.inputs.end());
      return at->second;
    };
    const Capture::Rows& x = rows_of(quantized);
    float* difference = nullptr;
    if (other != nullptr) {
      const Capture::Rows& y = rows_of(original);
      difference = ctx.scratch.take<float>(x.rows * x.size);
      std::copy(y.values.begin(), y.values.end(), difference);
      subtract(ctx, difference, x.values.data(), x.rows * x.size);
    }
    // A shared expert beside others is left alone: those make up for the loss.
    const float* own = moe_ != nullptr ? nullptr : lost;
    add_rows(g, {x.values.data(), difference, nullptr, nullptr, x.rows, own});
  }
  flush(ctx);
}

std::vector<InputStatistics> WaveObserver::run() {
  const bool experts = has_kind(wave_, Kind::expert) || has_kind(wave_, Kind::expert_intermediate);
  if (experts && o_.input.recipe.parameters.expert_fallback == ExpertFallback::all_tokens) {
    const std::vector<std::int64_t> counts = count_expert_tokens(o_);
    for (std::size_t g = 0; g < wave_.size(); ++g) {
      if (wave_[g].expert < 0) continue;
      if (counts[static_cast<std::size_t>(wave_[g].expert)] >= o_.input.recipe.parameters.min_expert_tokens) continue;
      statistics_[g].all_tokens = true;
      starved_.push_back(g);
    }
  }
  if (has_kind(wave_, Kind::expert_intermediate)) {
    const ModelSpec& spec = o_.pass.spec();
    const ExpertFfnDesc desc{moe_->router.num_experts, spec.hidden_size, moe_->moe_intermediate_size, moe_->hidden_act};
    const std::string prefix = "model.layers." + std::to_string(o_.input.layer) + ".mlp.experts";
    if (o_.cross) original_experts_ = load_experts(o_.input.source, prefix, desc, o_.pass.options(), &o_.input.threads);
    if (!starved_.empty()) {
      quantized_experts_ = load_experts(o_.quantized_source, prefix, desc, o_.pass.options(), &o_.input.threads);
    }
  }
  for (const LayerPass::Chunk& chunk : o_.pass.chunks()) {
    throw_if_interrupted();
    add_chunk(chunk);
  }
  return std::move(statistics_);
}

}  // namespace

std::vector<InputStatistics> observe(const Observation& observation, const Wave& wave) {
  std::vector<InputStatistics> statistics = WaveObserver(observation, wave).run();
  Communicator* ranks = observation.input.ranks;
  for (InputStatistics& s : statistics) {
    s.tokens = sum_over_ranks(ranks, s.tokens);
    for (std::vector<float>* sums : {&s.gram, &s.cross, &s.residual}) sum_over_ranks(ranks, std::span(*sums));
  }
  return statistics;
}

std::vector<std::int64_t> count_expert_tokens(const Observation& o) {
  const Moe* moe = moe_of(o);
  KEDGE_CHECK(moe != nullptr);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(moe->router.num_experts), 0);
  const std::unique_ptr<Block> block = o.pass.build(o.quantized_source, o.block);
  for (const LayerPass::Chunk& chunk : o.pass.chunks()) {
    throw_if_interrupted();
    Capture capture({}, static_cast<unsigned>(Site::routing));
    block->observe_routing(o.pass.context(&capture), o.quantized.row(chunk.first_row), chunk.rows);
    for (const std::int32_t expert : capture.expert_ids) ++counts[static_cast<std::size_t>(expert)];
  }
  sum_over_ranks(o.input.ranks, std::span(counts));
  return counts;
}

}  // namespace kedge
