// kedge eval as a user calls it: a table at once, a task of one's own, resumption after a kill, one clear sentence.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "base/json.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

trips::Call eval_call(const std::vector<std::string>& more) {
  trips::Call call;
  call.arguments = {"eval", trips::kDemo, "--threads", "2", "--quiet"};
  call.arguments.insert(call.arguments.end(), more.begin(), more.end());
  return call;
}

TEST(EvalTrip, PrintsATableOfTheBundledRecords) {
  const trips::Result result = trips::run(eval_call({"--tasks", "copa,wsc273", "--limit", "3", "--confidence"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* word : {"copa", "wsc273", "acc", "std. error", "small subset", "AUROC"}) {
    EXPECT_NE(result.out.find(word), std::string::npos) << word << "\n" << result.out;
  }
  EXPECT_EQ(result.err, "");
  const trips::Result list = trips::run({"eval", "--list"});
  EXPECT_NE(list.out.find("truthfulqa_mc2\n"), std::string::npos);
}

TEST(EvalTrip, RunsATaskOfOnesOwn) {
  const TemporaryFolder folder;
  trips::spit(folder / "mine.toml",
              "task = \"mine\"\noutput_type = \"multiple_choice\"\nfiles = [\"mine.jsonl\"]\ndoc_to_text = \"{{q}}\"\n"
              "doc_to_choice = \"{{a}}\"\ndoc_to_target = \"{{k}}\"\nmetrics = [\"acc\"]\n");
  trips::spit(folder / "mine.jsonl",
              "{\"q\": \"It was a dark\", \"a\": [\"and\", \"qzx\"], \"k\": 0}\n{\"q\": \"The\", \"a\": [\"xq\", "
              "\"man\"], \"k\": 1}\n");
  const trips::Result result = trips::run(eval_call({"--tasks", (folder / "mine.toml").string(), "--json"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const Json json = parse_json(result.out, "stdout");
  EXPECT_EQ(json["results"]["results"]["mine"]["acc,none"], 1.0);
  EXPECT_EQ(json["results"]["n-samples"]["mine"]["effective"], 2);

  trips::spit(folder / "mine.jsonl", "{\"q\": \"The\"}\n");
  const trips::Result broken = trips::run(eval_call({"--tasks", (folder / "mine.toml").string()}));
  EXPECT_EQ(broken.exit_code, 4);
  EXPECT_NE(broken.err.find("record 0"), std::string::npos) << broken.err;
  EXPECT_NE(broken.err.find("a is undefined"), std::string::npos) << broken.err;
}

TEST(EvalTrip, GoesOnAfterAKill) {
  const TemporaryFolder folder;
  const std::vector<std::string> work = {"--tasks", "hellaswag,piqa,openbookqa,blimp", "--out"};
  const auto call_into = [&](const std::string& name) {
    std::vector<std::string> words = work;
    words.push_back((folder / name).string());
    words.push_back("--json");
    return eval_call(words);
  };
  const auto start = std::chrono::steady_clock::now();
  const trips::Result whole = trips::run(call_into("whole"));
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  ASSERT_EQ(whole.exit_code, 0) << whole.err;

  // Loading is most of it on some machines, answering on others.
  bool was_cut = false;
  for (double share = 0.1; share < 1 && !was_cut; share += 0.1) {
    fs::remove_all(folder / "cut");
    trips::Call call = call_into("cut");
    call.kill_after = std::chrono::milliseconds(static_cast<std::int64_t>(share * took.count()) + 1);
    trips::run(call);
    const std::string progress = trips::slurp(folder / "cut/progress.jsonl");
    was_cut = std::count(progress.begin(), progress.end(), '\n') > 20;
  }
  ASSERT_TRUE(was_cut);
  trips::spit(folder / "cut/progress.jsonl", trips::slurp(folder / "cut/progress.jsonl") + "[1, -3.");
  const trips::Result rest = trips::run(call_into("cut"));
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  Json a = parse_json(whole.out, "whole")["results"], b = parse_json(rest.out, "rest")["results"];
  EXPECT_GT(b["requests_resumed"].get<int>(), 20);
  for (Json* results : {&a, &b}) {
    for (const char* key : {"requests_resumed", "tokens_asked", "tokens_computed", "load_seconds", "score_seconds"}) {
      results->erase(key);
    }
  }
  EXPECT_EQ(a, b);
  EXPECT_FALSE(fs::exists(folder / "cut/progress.jsonl"));
  EXPECT_EQ(trips::slurp(folder / "cut/samples_piqa.jsonl"), trips::slurp(folder / "whole/samples_piqa.jsonl"));
}

TEST(EvalTrip, SaysWhatIsWrong) {
  struct Case {
    std::vector<std::string> words;
    int code;
    const char* part;
  };
  const std::vector<Case> cases = {{{}, 2, "no task is given"},
                                   {{"--tasks", "arc_easy"}, 3, "--data-dir"},
                                   {{"--tasks", "hellaswagg"}, 2, "one of arc_challenge, arc_easy"},
                                   {{"--tasks", "copa", "--data-dir", "/none"}, 3, "is no folder"}};
  for (const Case& c : cases) {
    const trips::Result result = trips::run(eval_call(c.words));
    EXPECT_EQ(result.exit_code, c.code) << result.err;
    EXPECT_NE(result.err.find(c.part), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

}  // namespace
}  // namespace kedge
