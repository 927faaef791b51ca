// Records of a task -> what the model is asked: contexts with few-shot examples, and answers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "eval/documents.h"
#include "eval/task.h"

namespace kedge {

struct EvalSample {
  std::int64_t doc_id = 0;
  /// Context and continuation, one per choice; of rolling log-likelihoods one with an empty context, of generate_until
  /// one with an empty continuation.
  std::vector<std::pair<std::string, std::string>> arguments;
  std::vector<std::string> choices;  ///< multiple_choice: as acc_norm counts them
  std::size_t gold = 0;              ///< multiple_choice
  std::string target;                ///< the right answer as text
  std::vector<int> labels;           ///< answer_labels
};

struct PromptOptions {
  std::int64_t num_fewshot = 0;
  std::int64_t limit = 0;  ///< records at most; 0: all
  std::uint32_t fewshot_seed = 1234;
};

/// One sample per record, in order. fewshot: where examples come from; null: the records themselves, the one in
/// question left out. Error(bad_file): a template fails, or a right answer is no choice; names the record.
/// Error(usage): fewer examples than asked for.
std::vector<EvalSample> make_samples(const EvalTask& task, const std::vector<const nlohmann::ordered_json*>& records,
                                     const std::vector<const nlohmann::ordered_json*>* fewshot,
                                     const PromptOptions& options);

}  // namespace kedge
