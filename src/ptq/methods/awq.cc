#include "ptq/methods/awq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "kernels/gram/gram.h"
#include "kernels/vec/math.h"
#include "ptq/layers/observer.h"

namespace kedge {
namespace {

constexpr int kGrid = 20;
constexpr std::int64_t kSearchRows = 512;
constexpr std::int64_t kRowStep = 32;
// Of the largest channel's: a channel that no token moves must not stretch the scales of all others.
constexpr double kLeastRms = 1e-4;

using Scales = std::vector<float>;

struct Part {
  const InputGroup* group;
  const InputStatistics* inputs;
  double weight;  ///< of its error in the site's
};

class SiteSearch {
 public:
  SiteSearch(const BlockFold& fold, const FoldSite& site, std::vector<Part> parts)
      : fold_(fold), site_(site), parts_(std::move(parts)) {}
  FoldReport run();

 private:
  Scales rms() const;
  void make_candidates();
  /// Adds the errors of one group's matrices to errors_ [candidates].
  void assess(const Part& part);
  /// W - W^ of some rows, into out [rows, cols].
  void residual(const PlannedModule& module, const Tensor& w, const Scales& s, const InputStatistics& inputs,
                std::vector<float>& out) const;
  double inner_product(const std::vector<float>& gram, const std::vector<float>& other, std::int64_t n) const;

  const BlockFold& fold_;
  const FoldSite& site_;
  std::vector<Part> parts_;
  std::array<Scales, kGrid> candidates_;
  std::array<double, kGrid> errors_{};
};

Scales SiteSearch::rms() const {
  std::vector<double> squares(static_cast<std::size_t>(site_.channels), 0.0);
  for (const Part& part : parts_) {
    const std::int64_t n = part.inputs->size;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto channel = static_cast<std::size_t>(site_.channel_of_column[static_cast<std::size_t>(i)]);
      squares[channel] += part.weight * double(part.inputs->gram[static_cast<std::size_t>(i * n + i)]);
    }
  }
  const double most = *std::max_element(squares.begin(), squares.end());
  Scales out;
  for (const double square : squares) {
    out.push_back(most > 0 ? static_cast<float>(std::max(std::sqrt(square / most), kLeastRms)) : 1.0f);
  }
  return out;
}

void SiteSearch::make_candidates() {
  const Scales base = rms();
  for (int i = 0; i < kGrid; ++i) {
    Scales s;
    for (const float x : base) s.push_back(static_cast<float>(math::exp(double(i) / kGrid * math::log(double(x)))));
    const auto [least, most] = std::minmax_element(s.begin(), s.end());
    const float middle = std::sqrt(*least * *most);
    for (float& x : s) x /= middle;
    candidates_[static_cast<std::size_t>(i)] = i == 0 ? s : exact_scales(fold_, site_, s);
  }
}

void SiteSearch::residual(const PlannedModule& module, const Tensor& w, const Scales& s, const InputStatistics& inputs,
                          std::vector<float>& out) const {
  const std::int64_t rows = module.linear.rows, cols = module.linear.cols;
  const std::int64_t chosen = std::min(rows, kSearchRows);
  Scales column(static_cast<std::size_t>(cols)), importance(static_cast<std::size_t>(cols));
  for (std::size_t c = 0; c < column.size(); ++c) {
    column[c] = s[static_cast<std::size_t>(site_.channel_of_column[c])];
    importance[c] = inputs.gram[c * static_cast<std::size_t>(cols) + c] / (column[c] * column[c]);
  }
  ScaleSearch search;
  search.method = fold_.input.recipe.parameters.scale_search;
  search.importance = importance;
  out.resize(static_cast<std::size_t>(chosen * cols));
  const std::int64_t steps = (chosen + kRowStep - 1) / kRowStep;
  fold_.input.threads.parallel_for(steps, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> scaled;
    for (std::int64_t first = begin * kRowStep; first < std::min(chosen, end * kRowStep); first += kRowStep) {
      const std::int64_t count = std::min(kRowStep, chosen - first);
      scaled.resize(static_cast<std::size_t>(count * cols));
      float* to = out.data() + first * cols;
      for (std::int64_t r = 0; r < count; ++r) {
        const float* row = w.data<float>() + (first + r) * rows / chosen * cols;
        for (std::int64_t c = 0; c < cols; ++c) {
          to[r * cols + c] = row[c];
          scaled[static_cast<std::size_t>(r * cols + c)] = row[c] * column[static_cast<std::size_t>(c)];
        }
      }
      const QuantTensor q = quantize_rtn(scaled, count, cols, *module.args, module.scale_dtype(), search);
      for (std::int64_t r = 0; r < count; ++r) {
        dequantize_row(q, r, scaled.data());
        for (std::int64_t c = 0; c < cols; ++c) {
          to[r * cols + c] -= scaled[static_cast<std::size_t>(c)] / column[static_cast<std::size_t>(c)];
        }
      }
    }
  });
}

// Of two symmetric matrices whose upper triangles are given.
double SiteSearch::inner_product(const std::vector<float>& gram, const std::vector<float>& other,
                                 std::int64_t n) const {
  std::vector<double> sums(static_cast<std::size_t>(n));
  fold_.input.threads.parallel_for(n, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float *a = gram.data() + i * n, *b = other.data() + i * n;
      double sum = 0.5 * double(a[i]) * double(b[i]);
      for (std::int64_t j = i + 1; j < n; ++j) sum += double(a[j]) * double(b[j]);
      sums[static_cast<std::size_t>(i)] = 2 * sum;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void SiteSearch::assess(const Part& part) {
  const std::int64_t n = part.inputs->size;
  const ExecContext ctx = fold_.pass.context();
  std::vector<Tensor> weights;
  for (const PlannedModule* module : part.group->modules) {
    const LinearRef& linear = module->linear;
    weights.push_back(fold_.overlay.plain(linear.canonical, linear.rows, linear.cols));
  }
  std::vector<float> difference, product(static_cast<std::size_t>(n * n));
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    throw_if_interrupted();
    for (std::size_t m = 0; m < weights.size(); ++m) {
      const PlannedModule& module = *part.group->modules[m];
      residual(module, weights[m], candidates_[i], *part.inputs, difference);
      const auto rows = static_cast<std::int64_t>(difference.size()) / n;
      // tr(D G D^T) = <G, D^T D>.
      std::fill(product.begin(), product.end(), 0.0f);
      const GramJob job{difference.data(), n, nullptr, 0, nullptr, nullptr, rows, n, n, product.data(), n};
      gram(ctx, fold_.pass.options().isa, {&job, 1});
      const double sampled = double(module.linear.rows) / double(rows);
      errors_[i] += part.weight * sampled * inner_product(part.inputs->gram, product, n);
    }
  }
}

FoldReport SiteSearch::run() {
  make_candidates();
  for (const Part& part : parts_) assess(part);
  const auto best = static_cast<std::size_t>(std::min_element(errors_.begin(), errors_.end()) - errors_.begin());
  apply_scales(fold_, site_, candidates_[best]);
  return {site_.producer, double(best) / kGrid, errors_[0] > 0 ? errors_[best] / errors_[0] : 1.0};
}

bool reads(const FoldSite& site, const InputGroup& group) {
  return std::find(site.consumers.begin(), site.consumers.end(), group.modules.front()) != site.consumers.end();
}

}  // namespace

QuantTensor awq(const MethodInput& in) {
  KEDGE_CHECK(in.inputs != nullptr && in.parameters != nullptr);
  ScaleSearch search;
  search.method = in.parameters->scale_search;
  std::vector<float> importance(static_cast<std::size_t>(in.cols));
  for (std::size_t i = 0; i < importance.size(); ++i) {
    importance[i] = in.inputs->gram[i * static_cast<std::size_t>(in.cols) + i];
  }
  if (in.inputs->tokens > 0) search.importance = importance;
  return quantize_rtn(in.weights, in.rows, in.cols, in.args, in.scale_dtype, search);
}

std::vector<FoldReport> awq_fold(const BlockFold& fold) {
  const BlockSpec& block = fold.pass.spec().blocks[fold.block];
  const bool is_attention = std::holds_alternative<Attention>(block.mixer) || std::holds_alternative<Mla>(block.mixer);
  const std::vector<FoldSite> sites = fold_sites(fold.input.spec, block, fold.input.modules);
  const Observation observation{fold.input, fold.pass, fold.overlay, fold.block, fold.original, fold.quantized, false};
  std::vector<std::int64_t> seen;
  if (std::holds_alternative<Moe>(block.mixer)) seen = count_expert_tokens(observation);
  std::vector<FoldReport> reports;
  for (const Wave& wave : input_waves(fold.input.modules, is_attention)) {
    const auto wanted = [&](const FoldSite& site) {
      return std::any_of(wave.begin(), wave.end(), [&](const InputGroup& group) { return reads(site, group); });
    };
    if (std::none_of(sites.begin(), sites.end(), wanted)) continue;
    const std::vector<InputStatistics> statistics = observe(observation, wave);
    for (const FoldSite& site : sites) {
      std::vector<Part> parts;
      for (std::size_t g = 0; g < wave.size(); ++g) {
        if (!reads(site, wave[g]) || statistics[g].tokens == 0) continue;
        // An expert calibrated on all tokens counts as what it sees.
        double weight = 1;
        if (statistics[g].all_tokens) {
          weight = double(seen[static_cast<std::size_t>(wave[g].expert)]) / double(statistics[g].tokens);
        }
        if (site.consumers.size() == 1) weight = 1;
        parts.push_back({&wave[g], &statistics[g], weight});
      }
      if (!parts.empty()) reports.push_back(SiteSearch(fold, site, std::move(parts)).run());
    }
  }
  return reports;
}

}  // namespace kedge
