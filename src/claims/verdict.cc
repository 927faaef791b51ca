#include "claims/verdict.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "stats/bootstrap.h"
#include "stats/confidence.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kBins = 10;
constexpr BootstrapOptions kBootstrap = {.resamples = 4000, .seed = 424242};

using Samples = std::vector<const ClaimSample*>;

struct ConfidenceMetric {
  const char* name;
  double (*of)(std::span<const double> confidence, std::span<const int> correct);
};
constexpr std::array<ConfidenceMetric, 6> kConfidenceMetrics = {{
    {"ece_equal_width", [](auto c, auto r) { return expected_calibration_error(c, r, kBins, Binning::equal_width); }},
    {"ece_equal_mass", [](auto c, auto r) { return expected_calibration_error(c, r, kBins, Binning::equal_mass); }},
    {"brier", [](auto c, auto r) { return brier_score(c, r); }},
    {"auroc", [](auto c, auto r) { return auroc(c, r); }},
    {"aurc", [](auto c, auto r) { return aurc(c, r); }},
    {"confident_wrong_0.8", [](auto c, auto r) { return confident_wrong(c, r, 0.8).rate(); }},
}};

const ConfidenceMetric* find_confidence_metric(const std::string& metric) noexcept {
  for (const ConfidenceMetric& row : kConfidenceMetrics) {
    if (metric == row.name) return &row;
  }
  return nullptr;
}

double value_of(const ClaimSample& sample, const char* name) {
  const auto at = sample.values.find(name);
  return at == sample.values.end() ? kNaN : at->second;
}

// Between an effect and the scale on which its errors are symmetric.
double to_scale(const Claim& claim, double effect) {
  if (claim.effect == Effect::ratio) return std::log(effect);
  return claim.effect == Effect::relative_change ? std::log1p(effect) : effect;
}
double from_scale(const Claim& claim, double value) {
  if (claim.effect == Effect::ratio) return std::exp(value);
  return claim.effect == Effect::relative_change ? std::expm1(value) : value;
}

double scaled_sample(const Claim& claim, const ClaimSample& sample) {
  if (claim.effect == Effect::value) return value_of(sample, "value");
  const double subject = value_of(sample, "subject"), baseline = value_of(sample, "baseline");
  if (claim.effect == Effect::difference) return subject - baseline;
  return subject > 0 && baseline > 0 ? std::log(subject) - std::log(baseline) : kNaN;
}

double statistic(const Claim& claim, const Samples& samples) {
  if (const ConfidenceMetric* metric = find_confidence_metric(claim.metric)) {
    std::vector<double> confidence;
    std::vector<int> correct;
    for (const ClaimSample* sample : samples) {
      confidence.push_back(value_of(*sample, "confidence"));
      correct.push_back(value_of(*sample, "correct") != 0 ? 1 : 0);
    }
    return metric->of(confidence, correct);
  }
  double sum = 0;
  for (const ClaimSample* sample : samples) sum += scaled_sample(claim, *sample);
  return samples.empty() ? kNaN : sum / static_cast<double>(samples.size());
}

std::vector<Samples> clusters_of(std::span<const ClaimSample> samples) {
  std::map<std::int64_t, Samples> members;
  for (const ClaimSample& sample : samples) members[sample.cluster].push_back(&sample);
  std::vector<Samples> out;
  for (auto& [cluster, list] : members) out.push_back(std::move(list));
  return out;
}

// Does the value lie on the side that upholds (claimed), or beyond the one that refutes?
bool upholds(const Claim& claim, double effect) {
  return claim.relation == Relation::at_most ? effect <= claim.threshold : effect >= claim.threshold;
}
bool refutes(const Claim& claim, double effect) {
  return claim.relation == Relation::at_most ? effect > claim.refuted_at : effect < claim.refuted_at;
}

void student_t(const Claim& claim, const std::vector<Samples>& clusters, Estimate& out) {
  std::vector<double> means;
  for (const Samples& cluster : clusters) means.push_back(statistic(claim, cluster));
  const Interval interval = mean_interval(means, claim.confidence);
  out.scale_mean = interval.mean, out.scale_error = interval.standard_error;
  out.effect = from_scale(claim, interval.mean);
  if (clusters.size() < 2 || !std::isfinite(interval.mean)) return;
  out.low = from_scale(claim, interval.low), out.high = from_scale(claim, interval.high);
  if (interval.standard_error == 0) {
    out.p_upheld = upholds(claim, out.effect) ? 0 : 1;
    out.p_refuted = refutes(claim, out.effect) ? 0 : 1;
    return;
  }
  const double df = static_cast<double>(clusters.size() - 1);
  const double sign = claim.relation == Relation::at_least ? 1 : -1;
  const auto tail = [&](double bound, double direction) {
    return student_t_upper_tail(direction * (interval.mean - to_scale(claim, bound)) / interval.standard_error, df);
  };
  out.p_upheld = tail(claim.threshold, sign);
  out.p_refuted = tail(claim.refuted_at, -sign);
}

void bootstrap(const Claim& claim, const std::vector<Samples>& clusters, Estimate& out) {
  Samples all;
  for (const Samples& cluster : clusters) all.insert(all.end(), cluster.begin(), cluster.end());
  out.scale_mean = statistic(claim, all);
  out.effect = from_scale(claim, out.scale_mean);
  if (clusters.size() < 2 || !std::isfinite(out.scale_mean)) return;
  const std::vector<double> replicates = bootstrap_replicates(
      clusters.size(),
      [&](std::span<const std::size_t> drawn) {
        Samples chosen;
        for (const std::size_t c : drawn) chosen.insert(chosen.end(), clusters[c].begin(), clusters[c].end());
        return statistic(claim, chosen);
      },
      kBootstrap);
  // A replicate without a value speaks for neither side.
  std::vector<double> finite;
  std::int64_t against = 1, unrefuted = 1;
  for (const double replicate : replicates) {
    const double effect = from_scale(claim, replicate);
    if (std::isfinite(replicate)) finite.push_back(replicate);
    against += std::isfinite(replicate) && upholds(claim, effect) ? 0 : 1;
    unrefuted += std::isfinite(replicate) && refutes(claim, effect) ? 0 : 1;
  }
  const auto count = static_cast<double>(replicates.size() + 1);
  out.p_upheld = static_cast<double>(against) / count, out.p_refuted = static_cast<double>(unrefuted) / count;
  if (finite.empty()) return;
  const double tail = (1 - claim.confidence) / 2;
  out.low = from_scale(claim, quantile(finite, tail)), out.high = from_scale(claim, quantile(finite, 1 - tail));
  const Interval spread = mean_interval(finite);
  out.scale_error = spread.standard_error * std::sqrt(static_cast<double>(finite.size()));
}

void every(const Claim& claim, std::span<const ClaimSample> samples, Estimate& out) {
  bool all = true, counterexample = false;
  out.low = INFINITY, out.high = -INFINITY;
  for (const ClaimSample& sample : samples) {
    const double effect = sample_effect(claim, sample);
    out.low = std::min(out.low, effect), out.high = std::max(out.high, effect);
    all = all && upholds(claim, effect);
    counterexample = counterexample || refutes(claim, effect);
  }
  out.effect = claim.relation == Relation::at_most ? out.high : out.low;  // the worst
  out.scale_mean = to_scale(claim, out.effect);
  out.p_upheld = all ? 0 : 1, out.p_refuted = counterexample ? 0 : 1;
}

std::vector<double> adjusted(std::span<const Claim> claims, std::span<const Estimate* const> estimates,
                             double Estimate::* p) {
  std::vector<double> out(claims.size(), 1);
  std::map<std::string, std::vector<std::size_t>> families;
  for (std::size_t i = 0; i < claims.size(); ++i) {
    if (estimates[i] != nullptr) out[i] = estimates[i]->*p;
    if (!claims[i].family.empty()) families[claims[i].family].push_back(i);
  }
  for (const auto& [family, members] : families) {
    std::vector<double> values;
    for (const std::size_t i : members) values.push_back(out[i]);
    const std::vector<double> holm = holm_adjusted(values);
    for (std::size_t j = 0; j < members.size(); ++j) out[members[j]] = holm[j];
  }
  return out;
}

}  // namespace

const char* verdict_name(Verdict verdict) noexcept {
  constexpr const char* kNames[] = {"not run", "refuted", "inconclusive", "upheld"};
  return kNames[static_cast<std::size_t>(verdict)];
}

bool is_confidence_metric(const std::string& metric) noexcept { return find_confidence_metric(metric) != nullptr; }

std::vector<std::string> sample_values(const Claim& claim) {
  if (is_confidence_metric(claim.metric)) return {"confidence", "correct"};
  if (claim.effect == Effect::value) return {"value"};
  return {"subject", "baseline"};
}

double sample_effect(const Claim& claim, const ClaimSample& sample) {
  if (is_confidence_metric(claim.metric)) return kNaN;
  return from_scale(claim, scaled_sample(claim, sample));
}

Estimate estimate(const Claim& claim, std::span<const ClaimSample> samples) {
  Estimate out;
  out.effect = out.low = out.high = out.scale_mean = out.scale_error = kNaN;
  out.n = static_cast<std::int64_t>(samples.size());
  const std::vector<Samples> clusters = clusters_of(samples);
  out.clusters = static_cast<std::int64_t>(clusters.size());
  const std::vector<std::string> names = sample_values(claim);
  for (const ClaimSample& sample : samples) {
    const bool measured = std::all_of(names.begin(), names.end(), [&](const std::string& name) {
      return std::isfinite(value_of(sample, name.c_str()));
    });
    if (!measured) return out;
    if (!is_confidence_metric(claim.metric) && std::isnan(scaled_sample(claim, sample))) return out;
  }
  if (samples.empty()) return out;
  switch (claim.test) {
    case ClaimTest::student_t: student_t(claim, clusters, out); break;
    case ClaimTest::bootstrap: bootstrap(claim, clusters, out); break;
    case ClaimTest::every: every(claim, samples, out); break;
  }
  return out;
}

std::vector<Judgement> judge(std::span<const Claim> claims, std::span<const Estimate* const> estimates) {
  KEDGE_CHECK(claims.size() == estimates.size());
  const std::vector<double> upheld = adjusted(claims, estimates, &Estimate::p_upheld);
  const std::vector<double> refuted = adjusted(claims, estimates, &Estimate::p_refuted);
  std::vector<Judgement> out(claims.size());
  for (std::size_t i = 0; i < claims.size(); ++i) {
    out[i].p_upheld = upheld[i], out[i].p_refuted = refuted[i];
    if (estimates[i] == nullptr) continue;
    const double level = (1 - claims[i].confidence) / 2;
    out[i].verdict = upheld[i] <= level    ? Verdict::upheld
                     : refuted[i] <= level ? Verdict::refuted
                                           : Verdict::inconclusive;
  }
  return out;
}

}  // namespace kedge
