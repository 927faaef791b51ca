#include "kedge/evaluate.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eval/answer_text.h"
#include "eval/task.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = KEDGE_SOURCE_DIR;

class EvaluateTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "kedge-eval-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    set_quiet(true);
  }
  void TearDown() override {
    set_quiet(false);
    fs::remove_all(folder_);
  }
  EvaluateOptions options(std::vector<std::string> tasks, std::int64_t limit) const {
    EvaluateOptions out;
    out.model = kRoot / "models/demo-4m";
    out.tasks = std::move(tasks);
    out.limit = limit;
    out.runtime.threads = 2;
    return out;
  }
  static std::vector<Json> lines_of(const fs::path& path) {
    std::vector<Json> out;
    std::istringstream in(read_file(path));
    for (std::string line; std::getline(in, line);) out.push_back(parse_json(line, path.string()));
    return out;
  }
  template <class F>
  ErrorCode error_of(F&& edit) {
    EvaluateOptions o = options({"copa"}, 2);
    edit(o);
    try {
      evaluate(o);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "no error";
    return ErrorCode::io;
  }
  // What no time and no machine changes.
  static std::string figures(const EvaluateResult& result) {
    Json json = parse_json(result.json, "result")["results"];
    for (const char* key : {"load_seconds", "score_seconds", "requests_resumed", "tokens_asked", "tokens_computed"}) {
      json.erase(key);
    }
    return json.dump();
  }
  fs::path folder_;
};

TEST_F(EvaluateTest, SubtasksAreGrouped) {
  const EvaluateResult result = evaluate(options({"blimp"}, 2));
  ASSERT_EQ(result.tasks.size(), 67u);
  ASSERT_EQ(result.groups.size(), 1u);
  double mean = 0;
  for (const EvaluateTask& task : result.tasks) mean += task.metrics[0].value / 67;
  EXPECT_NEAR(result.groups[0].metrics[0].value, mean, 1e-12);
  EXPECT_EQ(result.groups[0].samples, 134);
  EXPECT_EQ(result.groups[0].confidence[0].questions, 134);
  const Json json = parse_json(result.json, "result");
  EXPECT_EQ(json["schema"], "kedge.eval/1");
  EXPECT_EQ(json["results"]["group_subtasks"]["blimp"].size(), 67u);
  EXPECT_NE(evaluate_table(result).find("blimp"), std::string::npos);
}

TEST_F(EvaluateTest, ThreadsChangeNoFigure) {
  EvaluateOptions o = options({"piqa", "lambada_openai"}, 4);
  o.votes = 5;
  const std::string two = figures(evaluate(o));
  o.runtime.threads = 1;
  EXPECT_EQ(figures(evaluate(o)), two);
}

TEST_F(EvaluateTest, ConfidencesOfBothWays) {
  EvaluateOptions o = options({"openbookqa"}, 20);
  o.votes = 40;
  const EvaluateResult result = evaluate(o);
  ASSERT_EQ(result.tasks[0].confidence.size(), 2u);
  for (const EvaluateConfidence& c : result.tasks[0].confidence) {
    EXPECT_EQ(c.questions, 20);
    EXPECT_GE(c.mean_confidence, 0.25) << c.way;
    EXPECT_GE(c.brier_multiclass, c.brier) << c.way;
    EXPECT_GE(c.ece_equal_width, std::fabs(c.mean_confidence - c.accuracy) - 1e-12) << c.way;
  }
  // Answers by likelihood per character are those that acc_norm counts.
  EXPECT_EQ(result.tasks[0].confidence[0].accuracy, result.tasks[0].metrics[1].value);
  EXPECT_NE(evaluate_confidence_table(result).find("self-consistency"), std::string::npos);
  o.seed = 1;
  const EvaluateResult other = evaluate(o);
  EXPECT_EQ(other.tasks[0].confidence[0].brier, result.tasks[0].confidence[0].brier);
  EXPECT_NE(other.tasks[0].confidence[1].brier, result.tasks[0].confidence[1].brier);
}

TEST_F(EvaluateTest, KeepsWhatIsInTheFolder) {
  EvaluateOptions o = options({"copa", "wsc273"}, 6);
  o.out = folder_ / "whole";
  const EvaluateResult whole = evaluate(o);
  EXPECT_FALSE(fs::exists(o.out / "progress.jsonl"));

  // tests/trips has a run that a kill ended.
  EvaluateOptions cut = o;
  cut.out = folder_ / "cut";
  cut.tasks = {"copa", "wsc273"};
  fs::create_directories(cut.out);
  std::ofstream(cut.out / "progress.jsonl") << "{\"plan\":\"of another run\"}\n";
  EXPECT_THROW(evaluate(cut), Error);
  fs::remove(cut.out / "progress.jsonl");
  EXPECT_EQ(figures(evaluate(cut)), figures(whole));
  EXPECT_EQ(read_file(cut.out / "samples_copa.jsonl"), read_file(o.out / "samples_copa.jsonl"));
  EXPECT_EQ(error_of([&](auto& e) { e.out = cut.out; }), ErrorCode::exists);
  EXPECT_NO_THROW([&] {
    cut.overwrite = true;
    evaluate(cut);
  }());
}

TEST_F(EvaluateTest, TextsRollThroughTheContext) {
  // 3 windows; every token but none twice, the first behind the prefix token.
  std::string text = read_file(kRoot / "models/demo-text.txt").substr(0, 9000);
  write_file_atomically(folder_ / "text.txt", text);
  EvaluateOptions o = options({"text"}, 0);
  o.data_dir = folder_;
  const EvaluateResult result = evaluate(o);
  ASSERT_EQ(result.tasks[0].metrics.size(), 3u);
  const double per_byte = std::log2(result.tasks[0].metrics[1].value);
  EXPECT_NEAR(result.tasks[0].metrics[2].value, per_byte, 1e-9);
  EXPECT_GT(per_byte, 1);
  EXPECT_LT(per_byte, 3);
  EXPECT_EQ(result.requests, 3);
}

TEST_F(EvaluateTest, WritesTexts) {
  EvaluateOptions o = options({"gsm8k"}, 3);
  o.out = folder_ / "out";
  const EvaluateResult result = evaluate(o);
  ASSERT_EQ(result.tasks[0].metrics.size(), 2u);
  EXPECT_EQ(result.tasks[0].metrics[0].name, "exact_match,strict-match");
  const std::vector<Json> samples = lines_of(o.out / "samples_gsm8k.jsonl");
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_FALSE(samples[0]["resps"][0].get<std::string>().empty());
}

TEST_F(EvaluateTest, FindsAnswersInTexts) {
  const EvalTask task = std::move(find_tasks("gsm8k")[0]);
  const std::string gold = "It is 9 * 2 = <<9*2=18>>18.\n#### 1,018";
  EXPECT_EQ(exact_match(task, "strict-match", " So 7.\n#### 1018\n#### 5", gold), 1);
  EXPECT_EQ(exact_match(task, "strict-match", " So 1018.", gold), 0);
  EXPECT_EQ(exact_match(task, "flexible-extract", " First 3, so $1,018.", gold), 1);
  EXPECT_EQ(exact_match(task, "flexible-extract", " First 1018, then 3", gold), 0);
  EXPECT_EQ(exact_match(task, "flexible-extract", "none", gold), 0);
}

TEST_F(EvaluateTest, Complains) {
  EXPECT_EQ(error_of([](auto& o) { o.tasks.clear(); }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.tasks = {"copa", "copa"}; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.tasks = {"coppa"}; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.tasks = {"blimp_none"}; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.tasks = {"arc_easy"}; }), ErrorCode::not_found);
  EXPECT_EQ(error_of([](auto& o) { o.data_dir = "/no/such/folder"; }), ErrorCode::not_found);
  EXPECT_EQ(error_of([&](auto& o) { o.data_dir = folder_; }), ErrorCode::not_found);
  EXPECT_EQ(error_of([](auto& o) { o.limit = -1; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.num_fewshot = 200; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.votes = 3, o.temperature = 0; }), ErrorCode::usage);
  EXPECT_EQ(error_of([](auto& o) { o.model = "/no/model"; }), ErrorCode::not_found);
}

}  // namespace
}  // namespace kedge
