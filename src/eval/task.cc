#include "eval/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/file.h"
#include "base/toml_section.h"
#include "eval/embedded.h"
#include "eval/metrics.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr std::array kOutputTypes = {"multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"};
constexpr std::uint64_t kMaxBytes = 1 << 20;

TaskText read_template(TomlSection& section, const fs::path& file, const std::string& key) {
  TaskText out;
  const TomlValue* value = section.find(key);
  if (value == nullptr) return out;
  out.source = section.as<std::string>(key, *value, "a text");
  out.compiled = TextTemplate::parse(out.source, fmt::format("{}:{}: {}", file.string(), value->line, key));
  return out;
}

std::vector<std::string> read_names(TomlSection& section, const std::string& key) {
  const TomlValue* value = section.find(key);
  return value == nullptr ? std::vector<std::string>{} : section.texts(key, *value);
}

// Choices: a list of texts, the same for all records, or a template that gives one.
void read_choices(TomlSection& section, const fs::path& file, EvalTask& task) {
  const TomlValue* value = section.find("doc_to_choice");
  if (value == nullptr) return;
  if (std::holds_alternative<TomlArray>(value->value)) {
    task.choices = section.texts("doc_to_choice", *value);
  } else {
    task.doc_to_choice = read_template(section, file, "doc_to_choice");
  }
}

void read_subtasks(TomlSection& top, const fs::path& file, EvalTask& task) {
  const TomlValue* value = top.find("subtasks");
  if (value == nullptr) return;
  TomlSection section(file, "[subtasks]", *value);
  task.subtask_field = section.as<std::string>(
      "field", section.require("field", "the field whose values are tasks of their own"), "a text");
  task.weight_by_size = section.boolean("weight_by_size", true);
  if (const TomlValue* groups = section.find("groups")) {
    TomlSection names(file, "[subtasks.groups]", *groups);
    for (const auto& [name, values] : names.members()) task.groups.emplace_back(name, names.texts(name, values));
  }
  section.refuse_others();
}

void read_generation(TomlSection& top, const fs::path& file, EvalTask& task) {
  if (const TomlValue* value = top.find("generation")) {
    TomlSection section(file, "[generation]", *value);
    task.until = read_names(section, "until");
    task.max_gen_toks = section.integer("max_gen_toks", task.max_gen_toks, 1);
    section.refuse_others();
  }
  if (const TomlValue* value = top.find("exact_match")) {
    TomlSection section(file, "[exact_match]", *value);
    task.ignore_case = section.boolean("ignore_case", false);
    task.regexes_to_ignore = read_names(section, "regexes_to_ignore");
    section.refuse_others();
  }
  const TomlValue* filters = top.find("filters");
  if (filters == nullptr) return;
  for (const TomlValue& item : top.as<TomlArray>("filters", *filters, "tables, [[filters]]")) {
    TomlSection section(file, "[[filters]]", item);
    AnswerFilter filter;
    filter.name = section.as<std::string>("name", section.require("name", "the filter's name"), "a text");
    filter.pattern =
        section.as<std::string>("regex_pattern", section.require("regex_pattern", "a regular expression"), "a text");
    filter.last = section.boolean("last", false);
    section.refuse_others();
    task.filters.push_back(std::move(filter));
  }
}

void check_task(const TomlSection& top, const EvalTask& task) {
  const auto need = [&](bool there, const char* key) {
    if (there) return;
    top.fail(top.line(), fmt::format("the task \"{}\" has no \"{}\"", task.name, key),
             fmt::format("one, as its output_type is {}", output_type_name(task.output_type)));
  };
  need(!task.files.empty(), "files");
  const bool rolling = task.output_type == OutputType::loglikelihood_rolling;
  need(rolling || task.doc_to_text.compiled.has_value(), "doc_to_text");
  need(task.doc_to_target.compiled.has_value(), "doc_to_target");
  if (task.output_type == OutputType::multiple_choice) {
    need(!task.choices.empty() || task.doc_to_choice.compiled.has_value(), "doc_to_choice");
  }
  if (rolling && task.num_fewshot > 0) {
    top.fail(top.line(), "a task of rolling log-likelihoods has few-shot examples", "num_fewshot = 0");
  }
  for (const std::string& metric : task.metrics) {
    if (is_metric_of(task.output_type, metric)) continue;
    top.fail(top.line(), fmt::format("\"{}\" is no metric of {}", metric, output_type_name(task.output_type)),
             "one of " + metric_names(task.output_type));
  }
  if (task.fewshot_sampler != "default" && task.fewshot_sampler != "first_n") {
    top.fail(top.line(), fmt::format("the sampler \"{}\" is not known", task.fewshot_sampler), "default or first_n");
  }
}

}  // namespace

const char* output_type_name(OutputType type) noexcept { return kOutputTypes[static_cast<std::size_t>(type)]; }

EvalTask parse_task(const std::string& text, const fs::path& file, const fs::path& folder) {
  const TomlValue root = parse_toml(text, file);
  TomlSection top(file, "the task", root);
  EvalTask task;
  task.definition = text;
  task.folder = folder;
  task.name = top.as<std::string>("task", top.require("task", "the task's name"), "a text");
  if (task.name.empty() || task.name.find_first_of("/,\\ ") != std::string::npos) {
    top.fail(top.line(), fmt::format("the task's name is \"{}\"", task.name), "one without spaces, commas and slashes");
  }
  task.alias = top.text("task_alias", task.name);
  task.version = top.text("version", "");
  task.source = top.text("source", "");
  const std::string type = top.as<std::string>("output_type", top.require("output_type", "multiple_choice"), "a text");
  const auto at = std::find(kOutputTypes.begin(), kOutputTypes.end(), type);
  if (at == kOutputTypes.end()) {
    top.fail(top.line(), fmt::format("the output_type is \"{}\"", type),
             "multiple_choice, loglikelihood, loglikelihood_rolling or generate_until");
  }
  task.output_type = static_cast<OutputType>(at - kOutputTypes.begin());
  task.files = read_names(top, "files");
  task.fewshot_files = read_names(top, "fewshot_files");
  task.doc_to_text = read_template(top, file, "doc_to_text");
  task.doc_to_target = read_template(top, file, "doc_to_target");
  read_choices(top, file, task);
  task.description = read_template(top, file, "description");
  task.answer_labels = read_template(top, file, "answer_labels");
  task.target_delimiter = top.text("target_delimiter", task.target_delimiter);
  task.fewshot_delimiter = top.text("fewshot_delimiter", task.fewshot_delimiter);
  task.multiple_input = top.boolean("multiple_input", false);
  task.num_fewshot = top.integer("num_fewshot", 0, 0);
  task.fewshot_sampler = top.text("fewshot_sampler", task.fewshot_sampler);
  task.metrics = top.texts("metrics", top.require("metrics", "a list of metrics"));
  task.split_pattern = top.text("split_pattern", "");
  read_subtasks(top, file, task);
  read_generation(top, file, task);
  top.refuse_others();
  check_task(top, task);
  return task;
}

std::vector<std::string> bundled_task_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_task_files()) {
    names.emplace_back(file.name.substr(0, file.name.rfind('.')));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<EvalTask> find_tasks(const std::string& name_or_path) {
  std::vector<EvalTask> out;
  for (const EmbeddedFile& file : embedded_task_files()) {
    const std::string name(file.name.substr(0, file.name.rfind('.')));
    if (name_or_path != name && !name_or_path.starts_with(name + "_")) continue;
    EvalTask task = parse_task(std::string(file.bytes), std::string(file.name), {});
    if (name_or_path != name && task.subtask_field.empty()) continue;
    if (name_or_path != name) task.only = name_or_path;
    out.clear();
    out.push_back(std::move(task));
    if (name_or_path == name) return out;
  }
  if (!out.empty()) return out;
  std::error_code ignored;
  const fs::path path = name_or_path;
  std::vector<fs::path> files;
  if (fs::is_directory(path, ignored)) {
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".toml") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) throw Error(ErrorCode::usage, path.string() + " holds no task", "TOML files");
  } else if (path.extension() == ".toml") {
    files.push_back(path);
  } else {
    std::string names;
    for (const std::string& name : bundled_task_names()) names += (names.empty() ? "" : ", ") + name;
    throw Error(ErrorCode::usage, fmt::format("there is no task \"{}\"", name_or_path),
                "one of " + names + ", or the path of a TOML file that defines one");
  }
  for (const fs::path& file : files) {
    // Without a folder the name stands for one in the current folder; an empty one would stand for the program's own.
    const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
    out.push_back(parse_task(read_file(file, kMaxBytes), file, folder));
  }
  return out;
}

}  // namespace kedge
