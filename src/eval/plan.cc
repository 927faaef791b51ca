#include "eval/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using Records = std::vector<const Json*>;

std::vector<fs::path> folders_of(const EvalTask& task, const EvaluateOptions& options) {
  std::vector<fs::path> folders;
  if (!task.folder.empty()) folders.push_back(task.folder);
  if (!options.data_dir.empty()) folders.push_back(options.data_dir);
  return folders;
}

Records all_of(const Documents& documents) {
  Records out;
  for (const Json& record : documents.records) out.push_back(&record);
  return out;
}

// By the values of a field, in the order in which they first come.
std::vector<std::pair<std::string, Records>> by_field(const EvalTask& task, const Documents& documents) {
  if (task.subtask_field.empty()) return {{"", all_of(documents)}};
  std::vector<std::pair<std::string, Records>> out;
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < documents.records.size(); ++i) {
    const Json& record = documents.records[i];
    const auto value = record.find(task.subtask_field);
    if (value == record.end() || !value->is_string()) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}, record {} has no text \"{}\"", documents.path, i, task.subtask_field),
                  "one: it says to which subtask the record belongs");
    }
    const auto [at, is_new] = places.emplace(value->get<std::string>(), out.size());
    if (is_new) out.emplace_back(at->first, Records{});
    out[at->second].second.push_back(&record);
  }
  return out;
}

// The names that count a subtask: the task, and the subgroup that lists the value.
std::vector<std::string> groups_of(const EvalTask& task, const std::string& value) {
  if (task.subtask_field.empty()) return {};
  std::vector<std::string> out = {task.name};
  for (const auto& [group, values] : task.groups) {
    if (std::find(values.begin(), values.end(), value) != values.end()) out.push_back(task.name + "_" + group);
  }
  return out;
}

class Planner {
 public:
  explicit Planner(const EvaluateOptions& options) : options_(options) {}

  EvalPlan run() && {
    for (const std::string& name : options_.tasks) {
      for (EvalTask& task : find_tasks(name)) {
        plan_.tasks.push_back(std::make_unique<EvalTask>(std::move(task)));
        add(*plan_.tasks.back(), name);
      }
    }
    if (plan_.units.empty()) throw Error(ErrorCode::usage, "no task is given", "--tasks NAME,...");
    hash_.update(fmt::format("\nfewshot {} {} limit {}", options_.num_fewshot, options_.fewshot_seed, options_.limit));
    plan_.hash = hash_.hex();
    return std::move(plan_);
  }

 private:
  void add(const EvalTask& task, const std::string& asked) {
    const std::vector<fs::path> folders = folders_of(task, options_);
    const Documents& documents = read(task.files, folders, task.split_pattern);
    const Documents* fewshot = task.fewshot_files.empty() ? nullptr : &read(task.fewshot_files, folders, {});
    hash_.update(fmt::format("\ntask {} {} {} {}", sha256_hex(task.definition), task.only, documents.sha256,
                             fewshot == nullptr ? "" : fewshot->sha256));
    if (documents.bundled) {
      note(
          fmt::format("{}: --data-dir is not given, so it is asked on {} records that are part of kedge, not on the "
                      "whole benchmark",
                      task.name, documents.records.size()));
    }
    std::map<std::string, Records> examples;
    if (fewshot != nullptr) {
      for (auto& [value, records] : by_field(task, *fewshot)) examples[value] = std::move(records);
    }
    const std::size_t before = plan_.units.size();
    for (const auto& [value, records] : by_field(task, documents)) {
      add_unit(task, documents, value, records, fewshot == nullptr ? nullptr : &examples[value]);
    }
    if (plan_.units.size() == before) {
      throw Error(ErrorCode::usage, fmt::format("there is no task \"{}\"", asked),
                  fmt::format("{}, or one of its subtasks: {}_ and a value of \"{}\"", task.name, task.name,
                              task.subtask_field));
    }
  }

  const Documents& read(const std::vector<std::string>& names, const std::vector<fs::path>& folders,
                        const std::string& split_pattern) {
    plan_.documents.push_back(std::make_unique<Documents>(read_documents(names, folders, split_pattern)));
    return *plan_.documents.back();
  }

  void add_unit(const EvalTask& task, const Documents& documents, const std::string& value, const Records& records,
                const Records* examples) {
    EvalUnit unit;
    unit.task = &task;
    unit.name = value.empty() ? task.name : task.name + "_" + value;
    unit.alias = value.empty() ? task.alias : value;
    unit.groups = groups_of(task, value);
    if (!task.only.empty()) {
      // A subtask alone counts for no group; a subgroup only for itself.
      std::erase_if(unit.groups, [&](const std::string& group) { return group != task.only; });
      if (unit.name != task.only && unit.groups.empty()) return;
    }
    if (!names_.insert(unit.name).second) {
      throw Error(ErrorCode::usage, fmt::format("the task {} is named twice", unit.name), "each one once");
    }
    unit.documents = &documents;
    unit.records = static_cast<std::int64_t>(records.size());
    unit.num_fewshot = options_.num_fewshot < 0 || task.output_type == OutputType::loglikelihood_rolling
                           ? task.num_fewshot
                           : options_.num_fewshot;
    unit.samples = make_samples(task, records, examples, {unit.num_fewshot, options_.limit, options_.fewshot_seed});
    for (const std::string& group : unit.groups) {
      if (std::find(plan_.groups.begin(), plan_.groups.end(), group) == plan_.groups.end())
        plan_.groups.push_back(group);
    }
    plan_.units.push_back(std::move(unit));
  }

  const EvaluateOptions& options_;
  EvalPlan plan_;
  Sha256 hash_;
  std::set<std::string> names_;
};

}  // namespace

EvalPlan make_plan(const EvaluateOptions& options) {
  if (options.limit < 0) {
    throw Error(ErrorCode::usage, fmt::format("a limit of {} records", options.limit), "0 (all) or above");
  }
  std::error_code ignored;
  if (!options.data_dir.empty() && !fs::is_directory(options.data_dir, ignored)) {
    throw Error(ErrorCode::not_found, options.data_dir.string() + " is no folder", "the folder of the tasks' records");
  }
  return Planner(options).run();
}

}  // namespace kedge
