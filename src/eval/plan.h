// What an evaluation will ask: the tasks with their subtasks, records and prompts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/documents.h"
#include "eval/prompt.h"
#include "eval/task.h"
#include "kedge/evaluate.h"

namespace kedge {

/// A task, or one subtask of it: what gets a row in the table.
struct EvalUnit {
  const EvalTask* task = nullptr;
  std::string name, alias;
  std::vector<std::string> groups;  ///< that count it: the task with subtasks, and its subgroup
  const Documents* documents = nullptr;
  std::int64_t records = 0;
  std::int64_t num_fewshot = 0;
  std::vector<EvalSample> samples;
};

struct EvalPlan {
  std::vector<std::unique_ptr<EvalTask>> tasks;
  std::vector<std::unique_ptr<Documents>> documents;
  std::vector<EvalUnit> units;
  std::vector<std::string> groups;  ///< names, each before its subgroups
  /// SHA-256 of what the figures depend on but the model and how it is computed.
  std::string hash;
};

/// Error(usage): no task, one twice, a subtask that does not exist; else as find_tasks, read_documents, make_samples.
EvalPlan make_plan(const EvaluateOptions& options);

}  // namespace kedge
