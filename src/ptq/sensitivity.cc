#include "ptq/sensitivity.h"

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "generate/score.h"
#include "model/checkpoint_source.h"
#include "moe/experts.h"
#include "moe/permutation.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "ptq/layers/capture.h"
#include "ptq/layers/layer_pass.h"
#include "ptq/layers/overlay_source.h"

namespace kedge {
namespace {

constexpr std::int64_t kTokens = 4096;
constexpr std::size_t kProbe = 1;  ///< of kMixedWidths
static_assert(kMixedWidths[kProbe] == 3);
constexpr std::int64_t kLogitRows = 128;

using Units = std::vector<SensitivityUnit*>;

// The model with one block rounded.
struct Path {
  std::unique_ptr<HiddenStates> states;
  double jaccard_distance = 0;  ///< summed over tokens and MoE layers
};

double squared_distance(const float* a, const float* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double d = double(a[i]) - double(b[i]);
    sum += d * d;
  }
  return sum;
}

double jaccard_distance(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b, std::int64_t k) {
  double sum = 0;
  for (std::size_t t = 0; t < a.size(); t += static_cast<std::size_t>(k)) {
    const auto first = a.begin() + static_cast<std::ptrdiff_t>(t), last = first + k;
    std::int64_t shared = 0;
    for (std::size_t s = 0; s < static_cast<std::size_t>(k); ++s) shared += std::find(first, last, b[t + s]) != last;
    sum += 1 - double(shared) / double(2 * k - shared);
  }
  return sum;
}

std::vector<SensitivityUnit> units_of(const QuantPlan& plan, const Recipe& recipe) {
  std::vector<SensitivityUnit> units;
  std::map<std::tuple<int, LinearRole, int>, std::size_t> at;
  for (const PlannedModule& module : plan.modules) {
    const LinearRef& linear = module.linear;
    const auto matches = [&](const Override& override) { return override.pattern.matches(linear.module); };
    if (!module.args || linear.layer < 0) continue;
    if (std::any_of(recipe.overrides.begin(), recipe.overrides.end(), matches)) continue;
    const int expert = recipe.mixed.per == BitsPer::expert ? linear.expert : -1;
    const auto [found, is_new] = at.emplace(std::tuple(linear.layer, linear.role, expert), units.size());
    if (is_new) units.push_back({linear.layer, linear.role, expert, {}, 0, {}});
    units[found->second].modules.push_back(&module);
  }
  return units;
}

class Measurement {
 public:
  explicit Measurement(const SensitivityInput& in)
      : in_(in),
        spec_(model_spec(in.checkpoint)),
        source_(in.checkpoint, spec_),
        options_{detect_isa(), Numerics::consistent, Activations::fp32},
        sequences_(std::clamp<std::int64_t>(kTokens / in.data.seqlen, 1,
                                            static_cast<std::int64_t>(in.data.sequences.size()))) {
    report_.units = units_of(in.plan, in.recipe);
  }
  SensitivityReport run();

 private:
  std::unique_ptr<HiddenStates> new_states() const {
    return std::make_unique<HiddenStates>(sequences_, in_.data.seqlen, spec_.hidden_size, in_.cache_dir);
  }
  void copy(const HiddenStates& from, HiddenStates& to) const {
    std::copy_n(from.row(0), from.rows() * from.hidden_size(), to.row(0));
  }
  void embed();
  void measure_block(LayerPass& pass, std::size_t block);
  void round_units(OverlaySource& overlay, const Units& units, std::size_t width) const;
  double output_error(LayerPass& pass, std::size_t block, const Units& units, std::size_t width);
  void measure_experts(LayerPass& pass, std::size_t block, const Units& experts);
  /// Through the block, in place; the experts chosen, where it is a MoE block.
  std::vector<std::int32_t> advance(LayerPass& pass, const Block& block, HiddenStates& states) const;
  void compare_logits();

  const SensitivityInput& in_;
  const ModelSpec spec_;
  const CheckpointSource source_;
  const LoadOptions options_;
  const std::int64_t sequences_;
  SensitivityReport report_;
  std::unique_ptr<HiddenStates> before_, after_;  ///< the original's, of the block under way
  double energy_ = 0;                             ///< of after_
  std::vector<Path> paths_;                       ///< [blocks of the report]
  std::int64_t moe_blocks_ = 0;
};

void Measurement::embed() {
  before_ = new_states();
  after_ = new_states();
  const Embedding embedding = Embedding::load(source_, "model.embed_tokens", spec_.vocab_size, spec_.hidden_size);
  Arena arena;
  const ExecContext ctx{in_.threads, arena};
  for (std::int64_t s = 0; s < sequences_; ++s) {
    embedding.forward(ctx, in_.data.sequences[static_cast<std::size_t>(s)], before_->row(s * in_.data.seqlen));
  }
}

std::vector<std::int32_t> Measurement::advance(LayerPass& pass, const Block& block, HiddenStates& states) const {
  std::vector<std::int32_t> ids;
  for (const LayerPass::Chunk& chunk : pass.chunks()) {
    throw_if_interrupted();
    Capture capture({}, static_cast<unsigned>(Site::routing));
    pass.forward(block, chunk, states.row(chunk.first_row), &capture);
    ids.insert(ids.end(), capture.expert_ids.begin(), capture.expert_ids.end());
  }
  return ids;
}

void Measurement::round_units(OverlaySource& overlay, const Units& units, std::size_t width) const {
  std::vector<const PlannedModule*> modules;
  for (const SensitivityUnit* unit : units) modules.insert(modules.end(), unit->modules.begin(), unit->modules.end());
  std::vector<QuantTensor> rounded(modules.size());
  in_.threads.parallel_for(static_cast<std::int64_t>(modules.size()), 1, [&](std::int64_t a, std::int64_t b, int) {
    for (std::int64_t i = a; i < b; ++i) {
      const PlannedModule& module = *modules[static_cast<std::size_t>(i)];
      const LinearRef& linear = module.linear;
      const Tensor w = overlay.plain(linear.canonical, linear.rows, linear.cols);
      QuantArgs args = *module.args;
      args.num_bits = kMixedWidths[width];
      rounded[static_cast<std::size_t>(i)] = quantize_rtn({w.data<float>(), static_cast<std::size_t>(w.size())},
                                                          linear.rows, linear.cols, args, module.scale_dtype());
    }
  });
  for (std::size_t i = 0; i < modules.size(); ++i) overlay.set(modules[i]->linear.canonical, std::move(rounded[i]));
}

double Measurement::output_error(LayerPass& pass, std::size_t block, const Units& units, std::size_t width) {
  OverlaySource overlay(source_);
  round_units(overlay, units, width);
  const std::unique_ptr<Block> rounded = pass.build(overlay, block);
  std::vector<float> h;
  double error = 0;
  for (const LayerPass::Chunk& chunk : pass.chunks()) {
    throw_if_interrupted();
    const float* from = before_->row(chunk.first_row);
    h.assign(from, from + chunk.rows * spec_.hidden_size);
    pass.forward(*rounded, chunk, h.data());
    error += squared_distance(h.data(), after_->row(chunk.first_row), chunk.rows * spec_.hidden_size);
  }
  return energy_ > 0 ? error / energy_ : 0;
}

void Measurement::measure_experts(LayerPass& pass, std::size_t block, const Units& experts) {
  const BlockSpec& block_spec = pass.spec().blocks[block];
  const Moe& moe = std::get<Moe>(block_spec.mixer);
  const ExpertFfnDesc desc{moe.router.num_experts, spec_.hidden_size, moe.moe_intermediate_size, moe.hidden_act};
  const std::string prefix = "model.layers." + std::to_string(block_spec.source_layer) + ".mlp.experts";
  const PackedExperts original = load_experts(source_, prefix, desc, options_, &in_.threads);
  const std::unique_ptr<Block> whole = pass.build(source_, block);
  for (std::size_t width = 0; width < std::size(kMixedWidths); ++width) {
    OverlaySource overlay(source_);
    round_units(overlay, experts, width);
    const PackedExperts rounded = load_experts(overlay, prefix, desc, options_, &in_.threads);
    std::vector<double> errors(static_cast<std::size_t>(moe.router.num_experts), 0.0);
    for (const LayerPass::Chunk& chunk : pass.chunks()) {
      throw_if_interrupted();
      Capture capture({}, static_cast<unsigned>(Site::routing) | static_cast<unsigned>(Site::moe_input));
      whole->observe_routing(pass.context(&capture), before_->row(chunk.first_row), chunk.rows);
      const ExecContext ctx = pass.context();
      // One slot at a time as if k were 1, so that each row of y is one expert's.
      const std::int64_t k = moe.router.num_experts_per_tok;
      for (std::int64_t slot = 0; slot < k; ++slot) {
        ArenaScope scope(ctx.scratch);
        std::int32_t* ids = ctx.scratch.take<std::int32_t>(chunk.rows);
        float* weights = ctx.scratch.take<float>(chunk.rows);
        for (std::int64_t t = 0; t < chunk.rows; ++t) {
          ids[t] = capture.expert_ids[static_cast<std::size_t>(t * k + slot)];
          weights[t] = capture.expert_weights[static_cast<std::size_t>(t * k + slot)];
        }
        const TokenPermutation permutation = make_permutation(ids, chunk.rows, 1, desc.num_experts, ctx.scratch);
        float* y = ctx.scratch.take<float>(chunk.rows * spec_.hidden_size);
        float* z = ctx.scratch.take<float>(chunk.rows * spec_.hidden_size);
        moe_ffn(ctx, capture.moe.values.data(), permutation, weights, desc, original, y);
        moe_ffn(ctx, capture.moe.values.data(), permutation, weights, desc, rounded, z);
        for (std::int64_t t = 0; t < chunk.rows; ++t) {
          const std::int64_t row = t * spec_.hidden_size;
          errors[static_cast<std::size_t>(ids[t])] += squared_distance(y + row, z + row, spec_.hidden_size);
        }
      }
    }
    for (SensitivityUnit* unit : experts) {
      unit->error[width] = energy_ > 0 ? errors[static_cast<std::size_t>(unit->expert)] / energy_ : 0;
    }
  }
}

void Measurement::measure_block(LayerPass& pass, std::size_t block) {
  const BlockSpec& block_spec = pass.spec().blocks[block];
  const auto& mixer = block_spec.mixer;
  const bool is_attention = std::holds_alternative<Attention>(mixer) || std::holds_alternative<Mla>(mixer);
  const Moe* moe = std::get_if<Moe>(&mixer);
  const std::unique_ptr<Block> original = pass.build(source_, block);
  copy(*before_, *after_);
  const std::vector<std::int32_t> chosen = advance(pass, *original, *after_);
  for (Path& path : paths_) {
    const std::vector<std::int32_t> ids = advance(pass, *original, *path.states);
    if (moe != nullptr) path.jaccard_distance += jaccard_distance(chosen, ids, moe->router.num_experts_per_tok);
  }
  if (moe != nullptr) ++moe_blocks_;

  Units all, experts;
  for (SensitivityUnit& unit : report_.units) {
    if (unit.layer != block_spec.source_layer || (unit.role == LinearRole::attention) != is_attention) continue;
    unit.block = report_.blocks.size();
    all.push_back(&unit);
    if (unit.expert >= 0) experts.push_back(&unit);
  }
  if (!all.empty()) {
    energy_ = 0;
    for (std::int64_t r = 0; r < after_->rows(); ++r) {
      const float* row = after_->row(r);
      for (std::int64_t i = 0; i < spec_.hidden_size; ++i) energy_ += double(row[i]) * double(row[i]);
    }
    if (!experts.empty()) measure_experts(pass, block, experts);
    for (SensitivityUnit* unit : all) {
      for (std::size_t width = 0; unit->expert < 0 && width < std::size(kMixedWidths); ++width) {
        unit->error[width] = output_error(pass, block, {unit}, width);
      }
    }
    Path path{new_states(), 0};
    copy(*before_, *path.states);
    OverlaySource overlay(source_);
    round_units(overlay, all, kProbe);
    advance(pass, *pass.build(overlay, block), *path.states);
    const std::int64_t count = after_->rows() * spec_.hidden_size;
    const double error = squared_distance(path.states->row(0), after_->row(0), count);
    report_.blocks.push_back({energy_ > 0 ? error / energy_ : 0, 0, 0});
    paths_.push_back(std::move(path));
  }
  std::swap(before_, after_);
}

void Measurement::compare_logits() {
  const RmsNorm norm = RmsNorm::load(source_, "model.norm", spec_.hidden_size, spec_.rms_norm_eps, options_.isa);
  const char* name = spec_.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  const Linear head = Linear::load(source_, name, spec_.vocab_size, spec_.hidden_size, false, options_);
  Arena arena;
  const ExecContext ctx{in_.threads, arena};
  const auto vocab = static_cast<std::size_t>(spec_.vocab_size);
  const auto logits = [&](const HiddenStates& states, std::int64_t first, std::int64_t rows, std::vector<float>& out) {
    ArenaScope scope(arena);
    float* x = arena.take<float>(rows * spec_.hidden_size);
    norm.forward(ctx, states.row(first), rows, x);
    out.resize(static_cast<std::size_t>(rows) * vocab);
    head.forward(ctx, x, rows, out.data());
  };
  const std::int64_t total = before_->rows();
  std::vector<float> p, q;
  std::vector<double> kld;
  for (std::int64_t first = 0; first < total; first += kLogitRows) {
    throw_if_interrupted();
    const std::int64_t rows = std::min(kLogitRows, total - first);
    logits(*before_, first, rows, p);
    for (std::size_t i = 0; i < paths_.size(); ++i) {
      logits(*paths_[i].states, first, rows, q);
      kld.assign(static_cast<std::size_t>(rows), 0.0);
      in_.threads.parallel_for(rows, 8, [&](std::int64_t begin, std::int64_t end, int) {
        for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
          const std::span<const float> a(p.data() + r * vocab, vocab), b(q.data() + r * vocab, vocab);
          kld[r] = compare_distributions(a, b, 0, options_.isa).kld;
        }
      });
      for (const double value : kld) report_.blocks[i].kld += value / double(total);
    }
  }
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const double mean = paths_[i].jaccard_distance / double(std::max<std::int64_t>(moe_blocks_ * total, 1));
    report_.blocks[i].routing = mean * mean;
  }
}

SensitivityReport Measurement::run() {
  embed();
  Progress progress("measuring sensitivity", spec_.num_hidden_layers, "layers");
  for (int layer = 0; layer < spec_.num_hidden_layers; ++layer) {
    LayerPass pass(spec_, layer, sequences_, in_.data.seqlen, options_, in_.threads);
    for (std::size_t block = 0; block < pass.num_blocks(); ++block) measure_block(pass, block);
    for (const PlannedModule& module : in_.plan.modules) {
      if (module.linear.layer == layer) in_.checkpoint.drop(module.linear.module);
    }
    progress.update(layer + 1);
  }
  progress.finish();
  compare_logits();
  return std::move(report_);
}

}  // namespace

SensitivityReport measure_sensitivity(const SensitivityInput& input) { return Measurement(input).run(); }

std::vector<std::array<double, std::size(kMixedWidths)>> losses(const SensitivityReport& report, Sensitivity by) {
  double kld = 0, routing = 0;
  for (const BlockSensitivity& block : report.blocks) {
    kld += block.kld;
    routing += block.routing;
  }
  const bool with_kld = by == Sensitivity::kld || by == Sensitivity::both;
  const bool with_routing = by == Sensitivity::routing || by == Sensitivity::both;
  std::vector<std::array<double, std::size(kMixedWidths)>> out;
  for (const SensitivityUnit& unit : report.units) {
    const BlockSensitivity& block = report.blocks[unit.block];
    double effect = 0;
    if (with_kld && kld > 0) effect += block.kld / kld;
    if (with_routing && routing > 0) effect += block.routing / routing;
    out.push_back(unit.error);
    if (by == Sensitivity::error) continue;
    for (double& loss : out.back()) loss = block.error > 0 ? effect * loss / block.error : 0;
  }
  return out;
}

}  // namespace kedge
