#include "eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"
#include "generate/template/text.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Metric {
  const char* name;
  OutputType type;
  bool higher_is_better;
};
constexpr Metric kMetrics[] = {
    {"acc", OutputType::multiple_choice, true},
    {"acc_norm", OutputType::multiple_choice, true},
    {"acc_bytes", OutputType::multiple_choice, true},
    {"acc", OutputType::loglikelihood, true},
    {"perplexity", OutputType::loglikelihood, false},
    {"word_perplexity", OutputType::loglikelihood_rolling, false},
    {"byte_perplexity", OutputType::loglikelihood_rolling, false},
    {"bits_per_byte", OutputType::loglikelihood_rolling, false},
    {"exact_match", OutputType::generate_until, true},
};

}  // namespace

bool is_metric_of(OutputType type, std::string_view metric) noexcept {
  return std::any_of(std::begin(kMetrics), std::end(kMetrics),
                     [&](const Metric& m) { return m.type == type && metric == m.name; });
}

std::string metric_names(OutputType type) {
  std::string names;
  for (const Metric& m : kMetrics) {
    if (m.type == type) names += (names.empty() ? "" : ", ") + std::string(m.name);
  }
  return names;
}

bool higher_is_better(std::string_view metric) noexcept {
  for (const Metric& m : kMetrics) {
    if (metric == m.name) return m.higher_is_better;
  }
  return true;
}

std::size_t first_greatest(std::span<const double> values) noexcept {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double multiple_choice_metric(std::string_view metric, std::span<const double> lls,
                              std::span<const std::string> choices, std::size_t gold) {
  KEDGE_CHECK(lls.size() == choices.size() && gold < lls.size());
  std::vector<double> scores(lls.begin(), lls.end());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (metric == "acc_norm") scores[i] /= static_cast<double>(jinja::count_code_points(choices[i]));
    if (metric == "acc_bytes") scores[i] /= static_cast<double>(choices[i].size());
  }
  return first_greatest(scores) == gold ? 1 : 0;
}

double probability_mass(std::span<const double> lls, std::span<const int> labels) {
  KEDGE_CHECK(lls.size() == labels.size() && !lls.empty());
  // Relative to the greatest: exp of a long answer's log-likelihood alone is 0.
  const double greatest = *std::max_element(lls.begin(), lls.end());
  double right = 0, all = 0;
  for (std::size_t i = 0; i < lls.size(); ++i) {
    const double p = std::exp(lls[i] - greatest);
    all += p;
    if (labels[i] != 0) right += p;
  }
  return right / all;
}

MetricValue aggregate(std::string_view metric, std::span<const MetricSample> samples) {
  std::vector<double> values, weights;
  for (const MetricSample& sample : samples) {
    values.push_back(sample.value);
    weights.push_back(sample.weight);
  }
  MetricValue out;
  out.samples = static_cast<std::int64_t>(samples.size());
  const Interval interval = ratio_interval(values, weights);
  const bool exponential = metric == "perplexity" || metric == "word_perplexity" || metric == "byte_perplexity";
  if (exponential) {
    out.value = std::exp(-interval.mean);
    out.standard_error = out.value * interval.standard_error;
  } else if (metric == "bits_per_byte") {
    out.value = -interval.mean / std::numbers::ln2;
    out.standard_error = interval.standard_error / std::numbers::ln2;
  } else {
    out.value = interval.mean;
    out.standard_error = interval.standard_error;
  }
  if (samples.size() < 2) out.standard_error = kNone;
  return out;
}

// sqrt(sum (n_i - 1) n_i se_i^2 / (N - tasks) / N): the records of all tasks share one variance, estimated within the
// tasks (pooled variance). Without weights the variances of the tasks' means add up.
MetricValue aggregate_group(std::span<const MetricValue> tasks, bool weight_by_size) {
  MetricValue out;
  double sum = 0, weights = 0, squares = 0;
  for (const MetricValue& task : tasks) {
    const auto n = static_cast<double>(task.samples);
    const double weight = weight_by_size ? n : 1;
    sum += weight * task.value;
    weights += weight;
    out.samples += task.samples;
    const double variance = task.standard_error * task.standard_error;
    squares += weight_by_size ? (n - 1) * n * variance : variance;
  }
  const auto count = static_cast<double>(tasks.size());
  const auto total = static_cast<double>(out.samples);
  out.value = sum / weights;
  if (weight_by_size) {
    out.standard_error = total > count ? std::sqrt(squares / (total - count) / total) : kNone;
  } else {
    out.standard_error = std::sqrt(squares) / count;
  }
  return out;
}

}  // namespace kedge
