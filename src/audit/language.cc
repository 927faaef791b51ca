#include "audit/language.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace kedge {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t position_bins = 32;

template <class Sums, class F, class G>
Interval ratio_of(const std::vector<const Sums*>& sequences, F numerator, G denominator) {
  std::vector<double> a, b;
  double total = 0;
  for (const Sums* s : sequences) {
    a.push_back(static_cast<double>(numerator(*s)));
    b.push_back(static_cast<double>(denominator(*s)));
    total += b.back();
  }
  return total > 0 ? ratio_interval(a, b) : Interval{nan, nan, nan, nan, 0};
}

AuditValue exponential(const Interval& x) {
  return {std::exp(x.mean), std::exp(x.low), std::exp(x.high), std::exp(x.mean) * x.standard_error, x.n};
}

AuditValue square_root(const Interval& x) {
  const double root = std::sqrt(std::max(0.0, x.mean));
  // d sqrt(x) = dx / (2 sqrt(x)); at 0 every sequence is 0 and so is the error.
  const double error = root > 0 ? x.standard_error / (2 * root) : x.standard_error;
  return {root, std::sqrt(std::max(0.0, x.low)), std::sqrt(std::max(0.0, x.high)), error, x.n};
}

// The same as quantile() of stats, without sorting again.
double sorted_quantile(const std::vector<double>& sorted, double q) {
  const double at = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto i = static_cast<std::size_t>(at);
  const std::size_t next = std::min(i + 1, sorted.size() - 1);
  return sorted[i] + (at - static_cast<double>(i)) * (sorted[next] - sorted[i]);
}

}  // namespace

AuditValue to_value(const Interval& x) { return {x.mean, x.low, x.high, x.standard_error, x.n}; }

const AuditValue& metric(const AuditMetrics& metrics, std::string_view name) {
  const auto at = std::find_if(metrics.begin(), metrics.end(), [name](const auto& m) { return m.first == name; });
  KEDGE_CHECK(at != metrics.end());
  return at->second;
}

LanguageComparison::LanguageComparison(std::int64_t seqlen) : seqlen_(seqlen) {}

void LanguageComparison::add_sequence(std::span<const DistributionDiff> positions) {
  KEDGE_CHECK(!positions.empty());
  Sums sums;
  sums.tokens = static_cast<std::int64_t>(positions.size());
  sums.targets = sums.tokens - 1;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const DistributionDiff& d = positions[i];
    sums.kld += d.kld;
    sums.kld_values.push_back(d.kld);
    sums.same_top += d.same_top ? 1 : 0;
    if (i + 1 == positions.size()) continue;
    const double delta = d.q_target - d.p_target;
    sums.nll_original += d.nll_p;
    sums.nll_quantized += d.nll_q;
    sums.delta_p += delta;
    sums.delta_p_squared += delta * delta;
  }
  sequences_.push_back(std::move(sums));
}

std::vector<const LanguageComparison::Sums*> LanguageComparison::selected(const std::vector<bool>& only) const {
  std::vector<const Sums*> chosen;
  for (std::size_t s = 0; s < sequences_.size(); ++s) {
    if (only.empty() || only[s]) chosen.push_back(&sequences_[s]);
  }
  return chosen;
}

AuditMetrics LanguageComparison::metrics(const std::vector<bool>& only) const {
  const auto chosen = selected(only);
  const auto targets = [](const Sums& s) { return s.targets; };
  const auto tokens = [](const Sums& s) { return s.tokens; };
  const Interval original = ratio_of(chosen, [](const Sums& s) { return s.nll_original; }, targets);
  const Interval quantized = ratio_of(chosen, [](const Sums& s) { return s.nll_quantized; }, targets);
  AuditMetrics metrics{{"perplexity_original", exponential(original)},
                       {"perplexity_quantized", exponential(quantized)},
                       {"nll_original", to_value(original)},
                       {"nll_quantized", to_value(quantized)}};
  metrics.emplace_back(
      "ln_ratio", to_value(ratio_of(chosen, [](const Sums& s) { return s.nll_quantized - s.nll_original; }, targets)));
  metrics.emplace_back("kld", to_value(ratio_of(chosen, [](const Sums& s) { return s.kld; }, tokens)));

  std::vector<double> sorted;
  bool defined = true;
  for (const Sums* s : chosen) {
    sorted.insert(sorted.end(), s->kld_values.begin(), s->kld_values.end());
  }
  // A model with NaN logits has no order of divergences.
  for (double v : sorted) defined = defined && !std::isnan(v);
  if (defined) std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<std::int64_t>(chosen.size());
  for (const auto& [name, q] : {std::pair{"kld_median", 0.5}, std::pair{"kld_p90", 0.9}, std::pair{"kld_p99", 0.99}}) {
    if (!defined) {
      metrics.emplace_back(name, AuditValue{nan, nan, nan, nan, n});
      continue;
    }
    const double value = sorted_quantile(sorted, q);
    const auto below = [value](const Sums& s) {
      return std::count_if(s.kld_values.begin(), s.kld_values.end(), [value](double v) { return v <= value; });
    };
    const double share_error = ratio_of(chosen, below, tokens).standard_error;
    if (n < 2 || std::isnan(share_error)) {
      metrics.emplace_back(name, AuditValue{value, value, value, nan, n});
      continue;
    }
    const double t = student_t_quantile(0.975, static_cast<double>(n - 1));
    const double low = sorted_quantile(sorted, q - t * share_error),
                 high = sorted_quantile(sorted, q + t * share_error);
    metrics.emplace_back(name, AuditValue{value, low, high, (high - low) / (2 * t), n});
  }
  const double max = defined ? sorted.back() : nan;
  metrics.emplace_back("kld_max", AuditValue{max, max, max, nan, n});
  metrics.emplace_back("same_top", to_value(ratio_of(chosen, [](const Sums& s) { return s.same_top; }, tokens)));
  metrics.emplace_back("delta_p", to_value(ratio_of(chosen, [](const Sums& s) { return s.delta_p; }, targets)));
  metrics.emplace_back("delta_p_rms",
                       square_root(ratio_of(chosen, [](const Sums& s) { return s.delta_p_squared; }, targets)));
  return metrics;
}

std::vector<AuditPositionBin> LanguageComparison::kld_by_position() const {
  const std::int64_t bins = std::min(seqlen_, position_bins);
  const auto chosen = selected({});
  std::vector<AuditPositionBin> result;
  for (std::int64_t b = 0; b < bins; ++b) {
    AuditPositionBin bin{b * seqlen_ / bins, (b + 1) * seqlen_ / bins, {}};
    const auto count = [&](const Sums& s) {
      return std::max<std::int64_t>(0, std::min(bin.end, s.tokens) - bin.begin);
    };
    const auto sum = [&](const Sums& s) {
      double total = 0;
      for (std::int64_t i = bin.begin; i < bin.begin + count(s); ++i)
        total += s.kld_values[static_cast<std::size_t>(i)];
      return total;
    };
    bin.kld = to_value(ratio_of(chosen, sum, count));
    result.push_back(bin);
  }
  return result;
}

void LanguageComparison::describe(std::size_t sequence, AuditSample& sample) const {
  const Sums& s = sequences_[sequence];
  const auto tokens = static_cast<double>(s.tokens), targets = static_cast<double>(s.targets);
  sample.kld = s.kld / tokens;
  sample.same_top = s.same_top / tokens;
  sample.nll_original = s.nll_original / targets;
  sample.nll_quantized = s.nll_quantized / targets;
}

}  // namespace kedge
