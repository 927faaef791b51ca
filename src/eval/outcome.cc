#include "eval/outcome.h"

#include <algorithm>

#include "base/check.h"
#include "eval/answer_text.h"
#include "generate/template/text.h"
#include "generate/tokenizer/unicode.h"
#include "stats/confidence.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

// Words as the harness counts them: the parts of a text between runs of whitespace, empty ones at its ends included.
std::int64_t count_words(const std::string& text) {
  std::int64_t words = 1;
  bool in_space = false;
  for (std::size_t pos = 0; pos < text.size();) {
    const bool space = jinja::is_python_space(unicode::next(text, pos));
    if (space && !in_space) ++words;
    in_space = space;
  }
  return words;
}

MetricSample of_multiple_choice(const EvalTask& task, const std::string& metric, const EvalSample& sample,
                                std::span<const RequestScore> scores) {
  std::vector<double> lls;
  for (const RequestScore& score : scores) lls.push_back(score.loglikelihood);
  if (task.answer_labels.compiled && metric == "acc") return {probability_mass(lls, sample.labels), 1};
  return {multiple_choice_metric(metric, lls, sample.choices, sample.gold), 1};
}

MetricSample of_rolling(const std::string& metric, const EvalSample& sample, const RequestScore& score) {
  const auto weight =
      metric == "word_perplexity" ? count_words(sample.target) : static_cast<std::int64_t>(sample.target.size());
  return {score.loglikelihood, static_cast<double>(weight)};
}

}  // namespace

std::vector<std::string> metric_columns(const EvalTask& task) {
  std::vector<std::string> out;
  for (const std::string& metric : task.metrics) {
    if (task.filters.empty()) out.push_back(metric + ",none");
    for (const AnswerFilter& filter : task.filters) out.push_back(metric + "," + filter.name);
  }
  return out;
}

std::string metric_of_column(const std::string& column) { return column.substr(0, column.find(',')); }

std::map<std::string, MetricSample> sample_metrics(const EvalTask& task, const EvalSample& sample,
                                                   std::span<const RequestScore> scores) {
  KEDGE_CHECK(scores.size() == sample.arguments.size());
  std::map<std::string, MetricSample> out;
  for (const std::string& column : metric_columns(task)) {
    const std::string metric = metric_of_column(column);
    switch (task.output_type) {
      case OutputType::multiple_choice: out[column] = of_multiple_choice(task, metric, sample, scores); break;
      case OutputType::loglikelihood:
        out[column] = {metric == "acc" ? (scores[0].is_greedy ? 1.0 : 0.0) : scores[0].loglikelihood, 1};
        break;
      case OutputType::loglikelihood_rolling: out[column] = of_rolling(metric, sample, scores[0]); break;
      case OutputType::generate_until:
        out[column] = {exact_match(task, column.substr(metric.size() + 1), scores[0].text, sample.target), 1};
    }
  }
  return out;
}

std::vector<std::string> answer_ways(const std::string& likelihood, const VoteOptions& options) {
  std::vector<std::string> ways = {likelihood};
  if (options.votes > 0) ways.push_back("self-consistency");
  return ways;
}

std::vector<Answer> sample_answers(const EvalTask& task, const EvalSample& sample, std::span<const RequestScore> scores,
                                   std::span<const ScoreRequest> requests, const VoteOptions& options) {
  if (task.output_type != OutputType::multiple_choice || task.answer_labels.compiled) return {};
  // Where the choices are contexts, what is scored is one text behind each: there is nothing to divide by.
  const std::vector<std::string> same(sample.choices.size(), "x");
  std::vector<Answer> out = {answer_by_likelihood(scores, task.multiple_input ? same : sample.choices)};
  if (options.votes == 0) return out;
  std::vector<std::vector<std::int32_t>> continuations(requests.size());
  for (std::size_t i = 0; i < requests.size() && !task.multiple_input; ++i) continuations[i] = requests[i].continuation;
  out.push_back(answer_by_votes(scores, continuations, options, static_cast<std::uint64_t>(sample.doc_id)));
  return out;
}

std::vector<EvaluateConfidence> confidence_rows(const std::vector<std::string>& ways,
                                                std::span<const EvalSample* const> samples,
                                                std::span<const SampleOutcome* const> outcomes) {
  KEDGE_CHECK(samples.size() == outcomes.size());
  constexpr int kBins = 10;
  constexpr double kConfident = 0.8;
  std::vector<EvaluateConfidence> out;
  for (std::size_t w = 0; w < ways.size(); ++w) {
    std::vector<double> confidence, right;
    std::vector<int> correct;
    std::vector<std::vector<double>> probabilities;
    std::vector<std::size_t> gold;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const Answer& answer = outcomes[i]->answers.at(w);
      confidence.push_back(answer.confidence);
      correct.push_back(answer.choice == samples[i]->gold ? 1 : 0);
      right.push_back(correct.back());
      probabilities.push_back(answer.probabilities);
      gold.push_back(samples[i]->gold);
    }
    const Interval accuracy = mean_interval(right);
    const ConfidentWrong wrong = confident_wrong(confidence, correct, kConfident);
    out.push_back({.way = ways[w],
                   .questions = static_cast<std::int64_t>(samples.size()),
                   .accuracy = accuracy.mean,
                   .accuracy_error = accuracy.standard_error,
                   .mean_confidence = mean_interval(confidence).mean,
                   .ece_equal_width = expected_calibration_error(confidence, correct, kBins, Binning::equal_width),
                   .ece_equal_mass = expected_calibration_error(confidence, correct, kBins, Binning::equal_mass),
                   .brier = brier_score(confidence, correct),
                   .brier_multiclass = multiclass_brier_score(probabilities, gold),
                   .auroc = auroc(confidence, correct),
                   .aurc = aurc(confidence, correct),
                   .confident_wrong = wrong.wrong,
                   .confident = wrong.confident});
  }
  return out;
}

std::vector<MetricValue> unit_metrics(const EvalTask& task, std::span<const SampleOutcome> outcomes) {
  std::vector<MetricValue> out;
  for (const std::string& column : metric_columns(task)) {
    std::vector<MetricSample> samples;
    for (const SampleOutcome& outcome : outcomes) samples.push_back(outcome.metrics.at(column));
    out.push_back(aggregate(metric_of_column(column), samples));
  }
  return out;
}

}  // namespace kedge
