#include "eval/task.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/json.h"
#include "eval/documents.h"
#include "eval/prompt.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// What an Error says of a task file.
std::string complaint(const std::string& text) {
  try {
    parse_task(text, "my.toml", {});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_file);
    return error.what();
  }
  ADD_FAILURE() << "no error for\n" << text;
  return {};
}

const std::string kSmall = R"(task = "t"
output_type = "multiple_choice"
files = ["t.jsonl"]
doc_to_text = "{{q}}"
doc_to_choice = ["a", "b"]
doc_to_target = "{{k}}"
metrics = ["acc"]
)";

TEST(EvalTask, ThoseOfTheProgramParse) {
  const std::vector<std::string> names = bundled_task_names();
  EXPECT_GE(names.size(), 18u);
  for (const std::string& name : names) {
    const std::vector<EvalTask> tasks = find_tasks(name);
    ASSERT_EQ(tasks.size(), 1u);
    EXPECT_EQ(tasks[0].name, name);
    EXPECT_FALSE(tasks[0].version.empty()) << name;
  }
  EXPECT_EQ(find_tasks("mmlu_stem")[0].only, "mmlu_stem");
  EXPECT_EQ(find_tasks("mmlu_tiny")[0].only, "");
  EXPECT_THROW(find_tasks("hellaswagg"), Error);
}

TEST(EvalTask, MmluHasAllSubjectsInOneGroup) {
  const EvalTask mmlu = std::move(find_tasks("mmlu")[0]);
  std::vector<std::string> subjects;
  for (const auto& [group, values] : mmlu.groups) subjects.insert(subjects.end(), values.begin(), values.end());
  EXPECT_EQ(subjects.size(), 57u);
  std::sort(subjects.begin(), subjects.end());
  EXPECT_EQ(std::unique(subjects.begin(), subjects.end()), subjects.end());
}

TEST(EvalTask, ComplainsWithFileAndLine) {
  EXPECT_NE(complaint("task = \"t\"\noutput_type = \"essay\"\n").find("my.toml:1: the output_type is \"essay\""),
            std::string::npos);
  EXPECT_NE(complaint(kSmall + "colour = 1\n").find("my.toml:8: the task has no key \"colour\""), std::string::npos);
  EXPECT_NE(complaint(kSmall + "fewshot_sampler = \"best\"\n").find("default or first_n"), std::string::npos);
  EXPECT_NE(complaint(kSmall + "num_fewshot = -1\n").find("0 or more"), std::string::npos);
  EXPECT_NE(complaint("task = \"a b\"\noutput_type = \"multiple_choice\"").find("without spaces"), std::string::npos);
  EXPECT_NE(complaint("nonsense").find("my.toml:1"), std::string::npos);
  std::string text = kSmall;
  text.replace(text.find("[\"acc\"]"), 7, "[\"bleu\"]");
  EXPECT_NE(complaint(text).find("acc, acc_norm, acc_bytes"), std::string::npos);
  text = kSmall;
  text.replace(text.find("{{q}}"), 5, "{{q");
  EXPECT_NE(complaint(text).find("doc_to_text"), std::string::npos);
  text = kSmall;
  text.erase(text.find("doc_to_target"), text.find("metrics") - text.find("doc_to_target"));
  EXPECT_NE(complaint(text).find("has no \"doc_to_target\""), std::string::npos);
}

std::vector<EvalSample> samples_of(const EvalTask& task, const std::vector<Json>& records,
                                   const PromptOptions& options = {}) {
  std::vector<const Json*> pointers;
  for (const Json& record : records) pointers.push_back(&record);
  return make_samples(task, pointers, nullptr, options);
}

TEST(Prompt, JoinsAsTheHarnessDoes) {
  EvalTask task = parse_task(kSmall, "my.toml", {});
  const std::vector<Json> records = {
      {{"q", "one"}, {"k", 0}}, {{"q", "two"}, {"k", "b"}}, {{"q", "three"}, {"k", "1"}}};
  const std::vector<EvalSample> samples = samples_of(task, records);
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[1].gold, 1u);
  EXPECT_EQ(samples[2].gold, 1u);
  EXPECT_EQ(samples[0].arguments[1], (std::pair<std::string, std::string>("one", " b")));
  task.fewshot_sampler = "first_n";
  task.description.compiled = TextTemplate::parse("About {{q}}.\n", "d");
  // The record in question is no example of itself.
  const std::vector<EvalSample> shots = samples_of(task, records, {.num_fewshot = 2});
  EXPECT_EQ(shots[0].arguments[0].first, "About one.\ntwo b\n\nthree b\n\none");
  EXPECT_EQ(shots[2].arguments[0].first, "About three.\none a\n\ntwo b\n\nthree");
  EXPECT_EQ(samples_of(task, records, {.limit = 1}).size(), 1u);
  EXPECT_THROW(samples_of(task, records, {.num_fewshot = 3}), Error);
  EXPECT_THROW(samples_of(task, {{{"q", "x"}, {"k", 2}}, {{"q", "y"}, {"k", 0}}}), Error);
  EXPECT_THROW(samples_of(task, {{{"q", "x"}}}), Error);
}

TEST(Prompt, ChoicesAsContexts) {
  const EvalTask task = std::move(find_tasks("winogrande")[0]);
  const std::vector<EvalSample> samples = samples_of(
      task, {{{"sentence", "Ann paid Eve as _ was late."}, {"option1", "Ann"}, {"option2", "Eve"}, {"answer", "2"}}});
  EXPECT_EQ(samples[0].arguments[0], (std::pair<std::string, std::string>("Ann paid Eve as Ann", " was late.")));
  EXPECT_EQ(samples[0].arguments[1].first, "Ann paid Eve as Eve");
  EXPECT_EQ(samples[0].gold, 1u);
}

TEST(Documents, ReadsAndComplains) {
  const std::filesystem::path folder = std::filesystem::path(KEDGE_SOURCE_DIR) / "tests/fixtures/eval";
  const Documents lines = read_documents({"absent.jsonl", "records.jsonl"}, {folder});
  EXPECT_EQ(lines.records.size(), 2u);
  EXPECT_EQ(lines.records[1]["q"], "two\xE2\x80\xA8lines");
  EXPECT_EQ(read_documents({"packed.jsonl"}, {folder}).sha256, lines.sha256);
  EXPECT_EQ(read_documents({"chapters.txt"}, {folder}, "(?<![^\\n])# ").records.size(), 2u);
  EXPECT_TRUE(read_documents({"hellaswag.jsonl"}, {}).bundled);
  const std::vector<std::pair<const char*, ErrorCode>> refused = {{"none.jsonl", ErrorCode::not_found},
                                                                  {"broken.jsonl", ErrorCode::bad_file},
                                                                  {"numbers.jsonl", ErrorCode::bad_file},
                                                                  {"object.json", ErrorCode::bad_file},
                                                                  {"empty.jsonl", ErrorCode::usage}};
  for (const auto& [name, code] : refused) {
    try {
      read_documents({name}, {folder});
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
    }
  }
}

}  // namespace
}  // namespace kedge
