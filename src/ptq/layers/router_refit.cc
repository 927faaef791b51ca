#include "ptq/layers/router_refit.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/interrupt.h"
#include "comm/sum.h"
#include "kernels/cholesky/cholesky.h"
#include "kernels/gram/gram.h"
#include "ptq/layers/boundary.h"
#include "ptq/layers/capture.h"

namespace kedge {
namespace {

struct Targets {
  std::vector<float> logits;  ///< [N, E], the original path's, centred for softmax routers
  std::vector<float> weights; ///< [N, E]
  std::vector<std::int32_t> expert_ids;  ///< [N, k]
};

class Refit {
 public:
  Refit(const LayerInput& input, LayerPass& pass, OverlaySource& overlay, std::size_t block,
        const HiddenStates& original, const HiddenStates& quantized);
  RefitReport run();

 private:
  /// Of the experts from `first` on, `count` of them: all where one Gram serves all.
  struct Sums {
    std::int64_t first = 0, count = 0;
    std::vector<float> gram;  ///< [count or 1][H, H]
    std::vector<float> rhs;   ///< [count][H]
  };
  void read_targets();
  Sums accumulate(std::int64_t first, std::int64_t count);
  void solve(Sums sums);
  /// Agreement and weighted error of the router that the overlay holds.
  std::pair<double, double> assess();
  void residuals(const Capture& capture, std::int64_t first_row, float* out) const;
  bool weighted() const noexcept { return input_.recipe.refit.weighting == RefitWeighting::boundary; }
  float* expert_row(std::int64_t e) noexcept { return weight_.data<float>() + e * hidden_; }

  const LayerInput& input_;
  LayerPass& pass_;
  OverlaySource& overlay_;
  std::size_t block_;
  const HiddenStates& original_;
  const HiddenStates& quantized_;
  const Moe& moe_;
  std::int64_t experts_, hidden_, k_;
  std::string module_;
  DType stored_ = DType::f32;
  Targets targets_;
  Tensor weight_;  ///< [E, H]
};

Refit::Refit(const LayerInput& input, LayerPass& pass, OverlaySource& overlay, std::size_t block,
             const HiddenStates& original, const HiddenStates& quantized)
    : input_(input),
      pass_(pass),
      overlay_(overlay),
      block_(block),
      original_(original),
      quantized_(quantized),
      moe_(std::get<Moe>(pass.spec().blocks[block].mixer)),
      experts_(moe_.router.num_experts),
      hidden_(pass.spec().hidden_size),
      k_(moe_.router.num_experts_per_tok) {
  for (const PlannedModule* module : input.modules) {
    if (module->linear.role != LinearRole::router) continue;
    module_ = module->linear.canonical;
    stored_ = module->dtype;
  }
  KEDGE_CHECK(!module_.empty());
  weight_ = overlay.plain(module_, experts_, hidden_);
}

void centre(float* row, std::int64_t size) {
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += row[i];
  const auto mean = static_cast<float>(sum / double(size));
  for (std::int64_t i = 0; i < size; ++i) row[i] -= mean;
}

void Refit::read_targets() {
  const std::int64_t rows = original_.rows();
  targets_.logits.resize(static_cast<std::size_t>(rows * experts_));
  targets_.weights.assign(static_cast<std::size_t>(rows * experts_), 1.0f);
  targets_.expert_ids.resize(static_cast<std::size_t>(rows * k_));
  std::vector<float> scores(static_cast<std::size_t>(rows * experts_));
  const std::unique_ptr<Block> block = pass_.build(input_.source, block_);
  for (const LayerPass::Chunk& chunk : pass_.chunks()) {
    throw_if_interrupted();
    Capture capture({}, static_cast<unsigned>(Site::routing));
    block->observe_routing(pass_.context(&capture), original_.row(chunk.first_row), chunk.rows);
    const auto at = static_cast<std::ptrdiff_t>(chunk.first_row * experts_);
    std::copy(capture.logits.values.begin(), capture.logits.values.end(), targets_.logits.begin() + at);
    std::copy(capture.scores.values.begin(), capture.scores.values.end(), scores.begin() + at);
    std::copy(capture.expert_ids.begin(), capture.expert_ids.end(),
              targets_.expert_ids.begin() + static_cast<std::ptrdiff_t>(chunk.first_row * k_));
  }
  if (moe_.router.scoring_func == ScoringFunc::softmax) {
    for (std::int64_t t = 0; t < rows; ++t) centre(targets_.logits.data() + t * experts_, experts_);
  }
  if (!weighted() || k_ >= experts_) return;
  targets_.weights =
      boundary_weights(input_.threads, scores, experts_, k_, input_.recipe.refit.tau_margins, input_.ranks).weights;
}

void Refit::residuals(const Capture& capture, std::int64_t first_row, float* out) const {
  const std::int64_t rows = capture.logits.rows;
  std::copy(capture.logits.values.begin(), capture.logits.values.end(), out);
  for (std::int64_t t = 0; t < rows; ++t) {
    float* row = out + t * experts_;
    if (moe_.router.scoring_func == ScoringFunc::softmax) centre(row, experts_);
    const float* target = targets_.logits.data() + (first_row + t) * experts_;
    for (std::int64_t e = 0; e < experts_; ++e) row[e] = target[e] - row[e];
  }
}

Refit::Sums Refit::accumulate(std::int64_t first, std::int64_t count) {
  const std::int64_t grams = weighted() ? count : 1;
  Sums sums{first, count, {}, {}};
  sums.gram.resize(static_cast<std::size_t>(grams * hidden_ * hidden_));
  sums.rhs.resize(static_cast<std::size_t>(count * hidden_));
  const std::unique_ptr<Block> block = pass_.build(overlay_, block_);
  const Isa isa = pass_.options().isa;
  for (const LayerPass::Chunk& chunk : pass_.chunks()) {
    throw_if_interrupted();
    Capture capture({}, static_cast<unsigned>(Site::routing) | static_cast<unsigned>(Site::moe_input));
    const ExecContext ctx = pass_.context();
    block->observe_routing(pass_.context(&capture), quantized_.row(chunk.first_row), chunk.rows);
    ArenaScope scope(ctx.scratch);
    const float* x = capture.moe.values.data();
    float* residual = ctx.scratch.take<float>(chunk.rows * experts_);
    residuals(capture, chunk.first_row, residual);
    std::vector<GramJob> jobs;
    float* weights = ctx.scratch.take<float>(chunk.rows * count);
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t t = 0; t < chunk.rows; ++t) {
        weights[i * chunk.rows + t] =
            targets_.weights[static_cast<std::size_t>((chunk.first_row + t) * experts_ + first + i)];
      }
      const float* w = weighted() ? weights + i * chunk.rows : nullptr;
      if (weighted() || i == 0) {
        jobs.push_back({x, hidden_, nullptr, 0, w, nullptr, chunk.rows, hidden_, hidden_,
                        sums.gram.data() + i * hidden_ * hidden_, hidden_});
      }
      jobs.push_back({residual + first + i, experts_, x, hidden_, w, nullptr, chunk.rows, 1, hidden_,
                      sums.rhs.data() + i * hidden_, hidden_});
    }
    gram(ctx, isa, jobs);
  }
  sum_over_ranks(input_.ranks, std::span(sums.gram));
  sum_over_ranks(input_.ranks, std::span(sums.rhs));
  return sums;
}

void Refit::solve(Sums sums) {
  const ExecContext ctx = pass_.context();
  const Isa isa = pass_.options().isa;
  const std::int64_t grams = weighted() ? sums.count : 1;
  for (std::int64_t g = 0; g < grams; ++g) {
    float* gram = sums.gram.data() + g * hidden_ * hidden_;
    double trace = 0;
    for (std::int64_t i = 0; i < hidden_; ++i) trace += gram[i * hidden_ + i];
    const auto ridge = static_cast<float>(input_.recipe.refit.ridge * trace / double(hidden_));
    if (!(ridge > 0)) continue;  // no token near this expert's boundary: nothing to fit
    for (std::int64_t i = 0; i < hidden_; ++i) gram[i * hidden_ + i] += ridge;
    if (!cholesky(ctx, isa, hidden_, gram, hidden_)) continue;
    for (std::int64_t e = weighted() ? g : 0; e < (weighted() ? g + 1 : sums.count); ++e) {
      float* delta = sums.rhs.data() + e * hidden_;
      cholesky_solve(ctx, isa, hidden_, gram, hidden_, delta, 1, 1);
      for (std::int64_t i = 0; i < hidden_; ++i) expert_row(sums.first + e)[i] += delta[i];
    }
  }
}

std::pair<double, double> Refit::assess() {
  const std::unique_ptr<Block> block = pass_.build(overlay_, block_);
  std::int64_t same = 0;
  double squares = 0, weight = 0;
  std::vector<float> residual;
  for (const LayerPass::Chunk& chunk : pass_.chunks()) {
    throw_if_interrupted();
    Capture capture({}, static_cast<unsigned>(Site::routing));
    block->observe_routing(pass_.context(&capture), quantized_.row(chunk.first_row), chunk.rows);
    residual.resize(static_cast<std::size_t>(chunk.rows * experts_));
    residuals(capture, chunk.first_row, residual.data());
    for (std::int64_t i = 0; i < chunk.rows * experts_; ++i) {
      const double w = targets_.weights[static_cast<std::size_t>(chunk.first_row * experts_ + i)];
      squares += w * double(residual[static_cast<std::size_t>(i)]) * double(residual[static_cast<std::size_t>(i)]);
      weight += w;
    }
    for (std::int64_t t = 0; t < chunk.rows; ++t) {
      const std::int32_t* original = targets_.expert_ids.data() + (chunk.first_row + t) * k_;
      for (std::int64_t s = 0; s < k_; ++s) {
        same += std::find(original, original + k_, capture.expert_ids[static_cast<std::size_t>(t * k_ + s)]) != original + k_;
      }
    }
  }
  same = sum_over_ranks(input_.ranks, same);
  squares = sum_over_ranks(input_.ranks, squares);
  weight = sum_over_ranks(input_.ranks, weight);
  const std::int64_t rows = sum_over_ranks(input_.ranks, original_.rows());
  return {double(same) / double(rows * k_), weight > 0 ? std::sqrt(squares / weight) : 0};
}

Tensor rounded(const Tensor& weight, DType stored) {
  Tensor out(DType::f32, weight.shape());
  if (stored != DType::bf16 && stored != DType::f16) {
    std::copy_n(weight.data<float>(), weight.size(), out.data<float>());
    return out;
  }
  Tensor narrow(stored, weight.shape());
  convert_from_float(stored, weight.data<float>(), weight.size(), narrow.data<std::byte>());
  convert_to_float(stored, narrow.data<std::byte>(), weight.size(), out.data<float>());
  return out;
}

RefitReport Refit::run() {
  RefitReport report;
  read_targets();
  std::tie(report.agreement_before, report.error_before) = assess();
  report.agreement_after = report.agreement_before;
  report.error_after = report.error_before;
  Tensor before = rounded(weight_, stored_);
  // The overlay keeps the router that was there until all are solved: a part sees the same residuals as the whole.
  const std::int64_t gram_bytes = hidden_ * hidden_ * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t part =
      weighted() ? std::clamp<std::int64_t>(input_.statistics_bytes / gram_bytes, 1, experts_) : experts_;
  for (std::int64_t first = 0; first < experts_; first += part) {
    solve(accumulate(first, std::min(part, experts_ - first)));
  }
  const bool finite = all_finite({weight_.data<float>(), static_cast<std::size_t>(weight_.size())});
  if (!finite) return report;
  overlay_.replace(module_ + ".weight", rounded(weight_, stored_));
  const auto [agreement, error] = assess();
  if (agreement < report.agreement_before) {
    overlay_.replace(module_ + ".weight", std::move(before));
    return report;
  }
  report.agreement_after = agreement;
  report.error_after = error;
  return report;
}

}  // namespace

RefitReport refit_router(const LayerInput& input, LayerPass& pass, OverlaySource& overlay, std::size_t block,
                         const HiddenStates& original, const HiddenStates& quantized) {
  return Refit(input, pass, overlay, block, original, quantized).run();
}

}  // namespace kedge
