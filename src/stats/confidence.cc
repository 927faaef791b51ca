#include "stats/confidence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "stats/correlation.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

void check_inputs(std::span<const double> confidence, std::span<const int> correct) {
  KEDGE_CHECK(confidence.size() == correct.size());
  for (const int value : correct) KEDGE_CHECK(value == 0 || value == 1);
}

std::vector<double> inner_edges(std::span<const double> confidence, int bins, Binning binning) {
  std::vector<double> edges;
  for (int b = 1; b < bins; ++b) {
    const double share = static_cast<double>(b) / bins;
    edges.push_back(binning == Binning::equal_width
                        ? share
                        : quantile(std::vector<double>(confidence.begin(), confidence.end()), share));
  }
  return edges;
}

}  // namespace

double expected_calibration_error(std::span<const double> confidence, std::span<const int> correct, int bins,
                                  Binning binning) {
  check_inputs(confidence, correct);
  KEDGE_CHECK(bins > 0);
  if (confidence.empty()) return kNone;
  const std::vector<double> edges = inner_edges(confidence, bins, binning);
  std::vector<double> gaps(static_cast<std::size_t>(bins), 0.0);  // sum of (correct - confidence)
  for (std::size_t i = 0; i < confidence.size(); ++i) {
    const auto bin = std::lower_bound(edges.begin(), edges.end(), confidence[i]) - edges.begin();
    gaps[static_cast<std::size_t>(bin)] += correct[i] - confidence[i];
  }
  double sum = 0;
  for (const double gap : gaps) sum += std::fabs(gap);
  return sum / static_cast<double>(confidence.size());
}

double brier_score(std::span<const double> confidence, std::span<const int> correct) {
  check_inputs(confidence, correct);
  if (confidence.empty()) return kNone;
  double sum = 0;
  for (std::size_t i = 0; i < confidence.size(); ++i) {
    sum += (confidence[i] - correct[i]) * (confidence[i] - correct[i]);
  }
  return sum / static_cast<double>(confidence.size());
}

double multiclass_brier_score(std::span<const std::vector<double>> probabilities, std::span<const std::size_t> gold) {
  KEDGE_CHECK(probabilities.size() == gold.size());
  if (gold.empty()) return kNone;
  double sum = 0;
  for (std::size_t i = 0; i < gold.size(); ++i) {
    KEDGE_CHECK(gold[i] < probabilities[i].size());
    for (std::size_t k = 0; k < probabilities[i].size(); ++k) {
      const double error = probabilities[i][k] - (k == gold[i] ? 1 : 0);
      sum += error * error;
    }
  }
  return sum / static_cast<double>(gold.size());
}

double auroc(std::span<const double> confidence, std::span<const int> correct) {
  check_inputs(confidence, correct);
  const std::vector<double> ranks = average_ranks(confidence);
  double right = 0, rank_sum = 0;
  for (std::size_t i = 0; i < correct.size(); ++i) {
    right += correct[i];
    rank_sum += correct[i] * ranks[i];
  }
  const double wrong = static_cast<double>(correct.size()) - right;
  if (right == 0 || wrong == 0) return kNone;
  return (rank_sum - right * (right + 1) / 2) / (right * wrong);
}

double aurc(std::span<const double> confidence, std::span<const int> correct) {
  check_inputs(confidence, correct);
  const std::size_t n = confidence.size();
  if (n == 0) return kNone;
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return confidence[a] > confidence[b]; });
  double risk = 0, wrong_before = 0;
  for (std::size_t begin = 0; begin < n;) {
    std::size_t end = begin;
    double wrong = 0;
    for (; end < n && confidence[order[end]] == confidence[order[begin]]; ++end) wrong += 1 - correct[order[end]];
    const double each = wrong / static_cast<double>(end - begin);
    for (std::size_t k = begin; k < end; ++k) {
      risk += (wrong_before + each * static_cast<double>(k - begin + 1)) / static_cast<double>(k + 1);
    }
    wrong_before += wrong;
    begin = end;
  }
  return risk / static_cast<double>(n);
}

double ConfidentWrong::rate() const noexcept {
  return confident == 0 ? kNone : static_cast<double>(wrong) / static_cast<double>(confident);
}

ConfidentWrong confident_wrong(std::span<const double> confidence, std::span<const int> correct, double threshold) {
  check_inputs(confidence, correct);
  ConfidentWrong out;
  for (std::size_t i = 0; i < confidence.size(); ++i) {
    if (confidence[i] < threshold) continue;
    ++out.confident;
    out.wrong += 1 - correct[i];
  }
  return out;
}

}  // namespace kedge
