// Accuracy on tasks of kedge eval, of an ablation's original and quantized models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "kedge/ablate.h"

namespace kedge {

/// [eval] of a recipe.
struct AblationEval {
  std::vector<std::string> tasks;  ///< as of kedge eval; empty: none is asked for
  std::filesystem::path data_dir;  ///< empty: the records that are part of the program
  std::int64_t num_fewshot = -1;   ///< -1: as each task says
  std::int64_t limit = 0;          ///< records per task; 0: all
  int line = 0;                    ///< of the recipe
};

struct TaskScore {
  std::string name, metric;  ///< a task, or the group that counts it; "acc,none"
  double value = 0, standard_error = 0;
  std::int64_t samples = 0;
};

/// In the order of the tasks; those of a group as the group. Error(usage): a task without an accuracy; else as
/// evaluate().
std::vector<TaskScore> score_tasks(const std::filesystem::path& model, const AblationEval& eval,
                                   const RuntimeOptions& runtime);

/// Each original model is scored once.
class OriginalScores {
 public:
  const std::vector<TaskScore>& of(const std::filesystem::path& model, const AblationEval& eval,
                                   const RuntimeOptions& runtime);

 private:
  std::map<std::filesystem::path, std::vector<TaskScore>> scores_;
};

/// What the scores depend on, besides the model: tasks, options, the content of files. null without tasks.
nlohmann::ordered_json eval_config(const AblationEval& eval);

/// results.tasks of a record; the scores are of the same tasks.
nlohmann::ordered_json tasks_to_json(const std::vector<TaskScore>& original, const std::vector<TaskScore>& quantized);
std::vector<AblationTask> tasks_from_json(const nlohmann::ordered_json& tasks);

}  // namespace kedge
