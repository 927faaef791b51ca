// Scores of a task's requests -> its metrics, sample by sample and over all.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "eval/answer.h"
#include "eval/metrics.h"
#include "eval/plan.h"
#include "eval/scorer.h"

namespace kedge {

/// What became of one record.
struct SampleOutcome {
  std::vector<RequestScore> scores;  ///< one per argument; of rolling log-likelihoods the windows' sum
  std::map<std::string, MetricSample> metrics;
  std::vector<Answer> answers;  ///< [answer_ways()]; empty where there is no single right choice
};

/// "ar", and with votes "self-consistency".
std::vector<std::string> answer_ways(const std::string& likelihood, const VoteOptions& options);
/// requests: of the sample's choices.
std::vector<Answer> sample_answers(const EvalTask& task, const EvalSample& sample, std::span<const RequestScore> scores,
                                   std::span<const ScoreRequest> requests, const VoteOptions& options);
/// One row per way. samples and outcomes belong together, one or more units one behind another.
std::vector<EvaluateConfidence> confidence_rows(const std::vector<std::string>& ways,
                                                std::span<const EvalSample* const> samples,
                                                std::span<const SampleOutcome* const> outcomes);

/// The task's columns in lm-evaluation-harness's names: "acc,none"; of generate_until one per filter.
std::vector<std::string> metric_columns(const EvalTask& task);
/// "acc" of "acc,none".
std::string metric_of_column(const std::string& column);

/// Metrics of one record, by column.
std::map<std::string, MetricSample> sample_metrics(const EvalTask& task, const EvalSample& sample,
                                                   std::span<const RequestScore> scores);

/// [metric_columns(task)] over all records.
std::vector<MetricValue> unit_metrics(const EvalTask& task, std::span<const SampleOutcome> outcomes);

}  // namespace kedge
