#include "ptq/activation_scales.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/vec/math.h"

namespace kedge {
namespace {

constexpr double kLargestCode = 127;
constexpr double kAveragingConstant = 0.01;
constexpr double kPercentile = 0.9999;
constexpr std::size_t kBins = 2048, kLevels = 128;
constexpr double kPointMass = 0.1;  // of all values, in one bin

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  double magnitude() const { return std::max(std::fabs(low), std::fabs(high)); }
};

Range range_of(std::span<const float> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, *high};
}

double min_max(const ActivationBatches& batches) {
  double a = 0;
  for (const auto& batch : batches) a = std::max(a, range_of(batch).magnitude());
  return a;
}

double moving_average(const ActivationBatches& batches) {
  Range mean = range_of(batches[0]);
  for (std::size_t i = 1; i < batches.size(); ++i) {
    const Range here = range_of(batches[i]);
    mean.low += kAveragingConstant * (here.low - mean.low);
    mean.high += kAveragingConstant * (here.high - mean.high);
  }
  return mean.magnitude();
}

double percentile(const ActivationBatches& batches) {
  std::vector<float> all;
  for (const auto& batch : batches) {
    for (const float x : batch) all.push_back(std::fabs(x));
  }
  const auto at = static_cast<std::ptrdiff_t>(std::ceil(kPercentile * static_cast<double>(all.size()))) - 1;
  std::nth_element(all.begin(), all.begin() + at, all.end());
  return all[static_cast<std::size_t>(at)];
}

/// Divergence of the first `bins` bins, whose last takes in all that is beyond, from what kLevels levels keep of them:
/// each level spreads its mass over its bins that are not empty.
double divergence(const std::vector<double>& histogram, std::size_t bins) {
  const double beyond = std::accumulate(histogram.begin() + static_cast<std::ptrdiff_t>(bins), histogram.end(), 0.0);
  const double inside = std::accumulate(histogram.begin(), histogram.begin() + static_cast<std::ptrdiff_t>(bins), 0.0);
  const double total = inside + beyond;
  if (inside == 0) return std::numeric_limits<double>::infinity();
  double sum = 0;
  for (std::size_t level = 0; level < kLevels; ++level) {
    const std::size_t begin = level * bins / kLevels, end = (level + 1) * bins / kLevels;
    double mass = 0, used = 0;
    for (std::size_t i = begin; i < end; ++i) {
      mass += histogram[i];
      used += histogram[i] > 0 || (i + 1 == bins && beyond > 0) ? 1 : 0;
    }
    const double q = used > 0 ? mass / used / inside : 0;
    for (std::size_t i = begin; i < end; ++i) {
      const double p = (histogram[i] + (i + 1 == bins ? beyond : 0)) / total;
      if (p == 0) continue;
      if (q == 0) return std::numeric_limits<double>::infinity();
      sum += p * math::log(p / q);
    }
  }
  return sum;
}

double least_divergence(const ActivationBatches& batches) {
  const double most = min_max(batches);
  if (most == 0) return 0;
  std::vector<double> histogram(kBins, 0.0);
  for (const auto& batch : batches) {
    for (const float x : batch) {
      const double at = std::fabs(static_cast<double>(x)) / most * static_cast<double>(kBins);
      ++histogram[std::min(kBins - 1, static_cast<std::size_t>(at))];
    }
  }
  const double total = std::accumulate(histogram.begin(), histogram.end(), 0.0);
  for (double& count : histogram) count = count > kPointMass * total ? 0 : count;
  std::size_t best = kBins;
  double least = divergence(histogram, kBins);
  for (std::size_t bins = kBins - 1; bins >= kLevels; --bins) {
    const double here = divergence(histogram, bins);
    if (here < least) {
      least = here;
      best = bins;
    }
  }
  return most * static_cast<double>(best) / static_cast<double>(kBins);
}

struct ObserverRow {
  const char* name;
  ActivationObserver observer;
  double (*largest)(const ActivationBatches& batches);
};
constexpr ObserverRow kObservers[] = {
    {"min-max", ActivationObserver::min_max, min_max},
    {"moving-average", ActivationObserver::moving_average, moving_average},
    {"histogram", ActivationObserver::histogram, least_divergence},
    {"percentile", ActivationObserver::percentile, percentile},
};

const ObserverRow& row_of(ActivationObserver observer) noexcept {
  for (const ObserverRow& row : kObservers) {
    if (row.observer == observer) return row;
  }
  KEDGE_CHECK(!"an observer without a row");
  return kObservers[0];
}

}  // namespace

const char* observer_name(ActivationObserver observer) noexcept { return row_of(observer).name; }

std::vector<std::string> observer_names() {
  std::vector<std::string> names;
  for (const ObserverRow& row : kObservers) names.emplace_back(row.name);
  return names;
}

ActivationObserver parse_observer(std::string_view name) {
  std::string known;
  for (const ObserverRow& row : kObservers) {
    if (name == row.name) return row.observer;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::usage, "\"" + std::string(name.substr(0, 40)) + "\" is no observer", "one of " + known);
}

float static_scale(const ActivationBatches& batches, ActivationObserver observer) {
  KEDGE_CHECK(!batches.empty());
  const double a = row_of(observer).largest(batches);
  return a > 0 ? static_cast<float>(a / kLargestCode) : 1.0f;
}

}  // namespace kedge
