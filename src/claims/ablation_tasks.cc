#include "claims/ablation_tasks.h"

#include <algorithm>
#include <system_error>

#include "base/check.h"
#include "base/json.h"
#include "kedge/error.h"
#include "kedge/evaluate.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

// The first share of right answers; a table of percentages has no place for a perplexity.
TaskScore score_of(const EvaluateTask& task) {
  const auto at = std::find_if(task.metrics.begin(), task.metrics.end(), [](const EvaluateMetric& metric) {
    return metric.name.starts_with("acc,") || metric.name.starts_with("exact_match,");
  });
  if (at == task.metrics.end()) {
    throw Error(ErrorCode::usage, "the task " + task.name + " has no accuracy", "tasks with right and wrong answers");
  }
  return {task.name, at->name, at->value, at->standard_error, task.samples};
}

}  // namespace

std::vector<TaskScore> score_tasks(const fs::path& model, const AblationEval& eval, const RuntimeOptions& runtime) {
  EvaluateOptions options;
  options.model = model;
  options.tasks = eval.tasks;
  options.data_dir = eval.data_dir;
  options.num_fewshot = eval.num_fewshot;
  options.limit = eval.limit;
  options.runtime = runtime;
  const EvaluateResult result = evaluate(options);
  std::vector<TaskScore> scores;
  for (const EvaluateTask& group : result.groups) scores.push_back(score_of(group));
  for (const EvaluateTask& task : result.tasks) {
    if (task.group.empty()) scores.push_back(score_of(task));
  }
  return scores;
}

const std::vector<TaskScore>& OriginalScores::of(const fs::path& model, const AblationEval& eval,
                                                 const RuntimeOptions& runtime) {
  const auto at = scores_.find(model);
  if (at != scores_.end()) return at->second;
  return scores_.emplace(model, score_tasks(model, eval, runtime)).first->second;
}

Json eval_config(const AblationEval& eval) {
  if (eval.tasks.empty()) return nullptr;
  Json tasks = Json::array();
  for (const std::string& task : eval.tasks) {
    std::error_code ignored;
    Json row{{"name", task}};
    if (fs::exists(task, ignored)) row["sha256"] = hash_input(task);
    tasks.push_back(std::move(row));
  }
  return {{"tasks", std::move(tasks)},
          {"data_dir", eval.data_dir.string()},
          {"data_sha256", eval.data_dir.empty() ? Json(nullptr) : Json(hash_input(eval.data_dir))},
          {"num_fewshot", eval.num_fewshot},
          {"limit", eval.limit}};
}

Json tasks_to_json(const std::vector<TaskScore>& original, const std::vector<TaskScore>& quantized) {
  KEDGE_CHECK(original.size() == quantized.size());
  const auto score = [](const TaskScore& s) { return Json{{"value", s.value}, {"standard_error", s.standard_error}}; };
  Json out = Json::array();
  for (std::size_t i = 0; i < original.size(); ++i) {
    KEDGE_CHECK(original[i].name == quantized[i].name && original[i].metric == quantized[i].metric);
    out.push_back({{"name", original[i].name},
                   {"metric", original[i].metric},
                   {"samples", original[i].samples},
                   {"original", score(original[i])},
                   {"quantized", score(quantized[i])}});
  }
  return out;
}

std::vector<AblationTask> tasks_from_json(const Json& tasks) {
  std::vector<AblationTask> out;
  for (const Json& task : tasks) {
    out.push_back({task.at("name").get<std::string>(), task.at("metric").get<std::string>(),
                   task.at("samples").get<std::int64_t>(), task.at("original").at("value").get<double>(),
                   task.at("quantized").at("value").get<double>()});
  }
  return out;
}

}  // namespace kedge
