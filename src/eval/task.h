// A task as data: which records, which prompt, which answers, which metrics (docs/formats/task.md).
//
// Keys, defaults and meaning are lm-evaluation-harness's (its task guide, 0.4), in TOML: the prompt is
// description + examples + doc_to_text; an answer is target_delimiter + choice; examples are joined by
// fewshot_delimiter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "generate/text_template.h"

namespace kedge {

enum class OutputType {
  multiple_choice,        ///< the likeliest of some answers
  loglikelihood,          ///< of one answer
  loglikelihood_rolling,  ///< of a whole text
  generate_until,         ///< text is written and compared
};
const char* output_type_name(OutputType) noexcept;

/// How an answer is found in what a model wrote; several of a task are metrics of their own ("exact_match,NAME").
struct AnswerFilter {
  std::string name;
  std::string pattern;  ///< a regular expression; the answer is the match (behind \K where there is one)
  bool last = false;    ///< of several matches the last, else the first
};

/// A text, or a template over one record.
struct TaskText {
  std::string source;  ///< as the file has it
  std::optional<TextTemplate> compiled;
};

struct EvalTask {
  std::string name, alias, version, source;
  std::string definition;  ///< the file's text
  OutputType output_type = OutputType::multiple_choice;
  /// Data files by name, the first that is there counts: docs, and where few-shot examples come from (empty: docs).
  std::vector<std::string> files, fewshot_files;
  std::filesystem::path folder;  ///< of the task's file, searched first; empty for tasks of the program
  TaskText doc_to_text, doc_to_target, doc_to_choice, description;
  std::vector<std::string> choices;  ///< where they are the same for all records; else doc_to_choice
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  bool multiple_input = false;  ///< choices are contexts of one answer; doc_to_text gives the right one's index
  std::int64_t num_fewshot = 0;
  std::string fewshot_sampler = "default";  ///< "default": drawn anew for each record; "first_n"
  std::vector<std::string> metrics;
  /// A record's array or object member: 1 for right and 0 for wrong answers; the metric acc is then the right answers'
  /// share of the probability (TruthfulQA's mc2).
  TaskText answer_labels;
  std::string only;            ///< of its subtasks and subgroups the one with this name; empty: all
  std::string subtask_field;   ///< each of its values is a task of its own, NAME_VALUE
  bool weight_by_size = true;  ///< of groups' means over their tasks
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;  ///< subgroup -> values of subtask_field
  std::string split_pattern;  ///< of text files: each match begins a document; empty: the file is one
  // generate_until
  std::vector<std::string> until;
  std::int64_t max_gen_toks = 256;
  std::vector<AnswerFilter> filters;
  std::vector<std::string> regexes_to_ignore;  ///< removed from both sides before they are compared
  bool ignore_case = false;
};

/// Error(bad_file) "FILE:LINE: ..." for anything that the file has wrong. folder: where its data may lie.
EvalTask parse_task(const std::string& text, const std::filesystem::path& file, const std::filesystem::path& folder);

/// Tasks of the program, by name, in alphabetical order.
std::vector<std::string> bundled_task_names();

/// A name of the program's tasks (or NAME_SUBTASK, NAME_GROUP), or the path of a TOML file, or of a folder of them.
/// Error(usage): no such task (names those there are).
std::vector<EvalTask> find_tasks(const std::string& name_or_path);

}  // namespace kedge
