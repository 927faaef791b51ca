// From scores to metrics, as lm-evaluation-harness defines them.
//
//   acc        1 where argmax_i ll_i is the right answer (the first of equal ones counts)
//   acc_norm   the same of ll_i / characters of choice i; acc_bytes: / its UTF-8 bytes
//   perplexity exp(-mean ll) over records
//   word_perplexity, byte_perplexity exp(-sum ll / sum words), ... bytes; bits_per_byte -sum ll / (ln 2 * sum bytes)
//   exact_match 1 where the answer found in the model's text equals the right one
//
// Standard errors: of means sqrt(s^2 / n); of exponentials by the delta method (value * error of the mean; the harness
// draws bootstrap samples), for ratios over documents; of groups pooled.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/task.h"

namespace kedge {

/// What one record gave. Weighted metrics have a numerator and a denominator; others a weight of 1.
struct MetricSample {
  double value = 0;
  double weight = 1;
};

struct MetricValue {
  double value = 0;
  double standard_error = 0;  ///< NaN: none
  std::int64_t samples = 0;
};

bool is_metric_of(OutputType type, std::string_view metric) noexcept;
std::string metric_names(OutputType type);
bool higher_is_better(std::string_view metric) noexcept;

/// Of multiple choices. lls and choices of one size > 0; gold inside.
double multiple_choice_metric(std::string_view metric, std::span<const double> lls,
                              std::span<const std::string> choices, std::size_t gold);
/// Share of the probability that right answers (labels != 0) have: sum of exp(ll) there / everywhere.
double probability_mass(std::span<const double> lls, std::span<const int> labels);
/// The metric over all records.
MetricValue aggregate(std::string_view metric, std::span<const MetricSample> samples);
/// A group's: mean of its tasks' values, each weighted by its number of records or all alike.
MetricValue aggregate_group(std::span<const MetricValue> tasks, bool weight_by_size);
/// First index of the greatest.
std::size_t first_greatest(std::span<const double> values) noexcept;

}  // namespace kedge
