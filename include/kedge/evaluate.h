// kedge eval: how well a model answers benchmarks, as lm-evaluation-harness asks and counts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kedge/options.h"

namespace kedge {

struct EvaluateOptions {
  std::filesystem::path model;
  std::vector<std::string> tasks;  ///< names of bundled_tasks(), or TOML files, or folders of them
  /// Where the tasks' records are. Empty: tasks of the program read the small subset that is part of it, and the result
  /// says so.
  std::filesystem::path data_dir;
  std::int64_t num_fewshot = -1;  ///< -1: as each task says
  std::int64_t limit = 0;         ///< records per task, from the front; 0: all
  std::uint32_t fewshot_seed = 1234;
  /// Folder for results.json and a samples_TASK.jsonl per task; empty: none. A run that was stopped leaves
  /// progress.jsonl there, and the same call goes on behind it.
  std::filesystem::path out;
  bool overwrite = false;    ///< replace results that are in `out`
  std::int64_t votes = 0;    ///< answers sampled per question for self-consistency; 0: none
  double temperature = 0.7;  ///< of these samples
  std::int64_t mc_samples = 128;  ///< of each likelihood of a masked-diffusion model (src/eval/diffusion_scorer.h)
  std::uint64_t seed = 0;         ///< of these samples
  RuntimeOptions runtime;
};

/// A metric with its standard error over records (NaN: none), in lm-evaluation-harness's name: "acc,none".
struct EvaluateMetric {
  std::string name;
  double value = 0, standard_error = 0;
};

/// How right and how sure a way of answering multiple choices is (src/stats/confidence.h). NaN: nothing to measure.
struct EvaluateConfidence {
  std::string way;  ///< "ar" or "diffusion", "self-consistency" (src/eval/answer.h)
  std::int64_t questions = 0;
  double accuracy = 0, accuracy_error = 0;  ///< with its standard error
  double mean_confidence = 0;
  double ece_equal_width = 0, ece_equal_mass = 0;  ///< ten bins
  double brier = 0, brier_multiclass = 0;
  double auroc = 0, aurc = 0;
  std::int64_t confident_wrong = 0, confident = 0;  ///< at a confidence of 0.8 or above
};

struct EvaluateTask {
  std::string name, alias, version;
  std::string group;  ///< the group that counts it; empty: none
  std::string data;   ///< file, or "bundled:NAME"
  bool bundled = false;
  std::int64_t num_fewshot = 0, samples = 0, records = 0;  ///< answered, and there
  std::vector<EvaluateMetric> metrics;
  std::vector<EvaluateConfidence> confidence;  ///< of multiple choices with one right answer, by way
};

struct EvaluateResult {
  EvaluateOptions options;
  std::vector<EvaluateTask> tasks;
  std::vector<EvaluateTask> groups;  ///< data empty; samples: of all its tasks
  std::string isa;
  int threads = 1;
  std::int64_t requests = 0, requests_resumed = 0;
  std::int64_t tokens_asked = 0;     ///< rows that the requests have, each on its own
  std::int64_t tokens_computed = 0;  ///< rows that were computed: shared beginnings once
  double load_seconds = 0, score_seconds = 0;
  std::string json;  ///< envelope kedge.eval/1 (docs/formats/eval.md), without samples
};

/// Errors: usage (no such task, nothing to do), not_found (records), bad_file (a task or record), exists (results in
/// `out`), mismatch (progress of another run in `out`), interrupted (progress stays), else as loading a model.
/// ranks: share the requests; only rank 0 has the result and writes it. null: one rank.
class Communicator;
EvaluateResult evaluate(const EvaluateOptions& options, Communicator* ranks = nullptr);

/// A table for a terminal.
std::string evaluate_table(const EvaluateResult& result);
/// The same of confidences; empty when there are none.
std::string evaluate_confidence_table(const EvaluateResult& result);

/// Names of the tasks that are part of the program.
std::vector<std::string> bundled_tasks();

}  // namespace kedge
