// kedge train, end to end: the result opens and runs; kills and Ctrl-C change no loss; what is wrong is said.
#include <signal.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "kedge/error.h"
#include "process.h"

#ifdef KEDGE_TORCH_BINARY
namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

/// demo-4m with fewer and smaller layers.
void write_config(const fs::path& path) {
  Json config = read_json(trips::kDemo + "/config.json");
  config["hidden_size"] = 32;
  config["head_dim"] = 8;
  config["num_hidden_layers"] = 2;
  config["num_local_experts"] = 6;
  config["moe_intermediate_size"] = 16;
  trips::spit(path, config.dump());
}

/// more: flags and values, in place of the usual ones or beside them.
std::vector<std::string> arguments(const TemporaryFolder& folder, const std::string& out,
                                   const std::vector<std::string>& more = {}) {
  write_config(folder / "config.json");
  std::vector<std::string> words = {"train",        "lm",
                                    "--config",     (folder / "config.json").string(),
                                    "--tokenizer",  trips::kDemo,
                                    "--text",       trips::kDemoText,
                                    "--out",        (folder / out).string(),
                                    "--steps",      "40",
                                    "--batch-size", "2",
                                    "--seqlen",     "32",
                                    "--save-every", "5",
                                    "--threads",    "1",
                                    "--lr",         "0.01"};
  for (std::size_t i = 0; i < more.size(); i += 2) {
    const auto at = std::find(words.begin(), words.end(), more[i]);
    if (at != words.end()) {
      at[1] = more[i + 1];
    } else {
      words.insert(words.end(), {more[i], more[i + 1]});
    }
  }
  return words;
}

/// Every line of the log without the speed.
std::vector<std::string> losses(const fs::path& out) {
  std::vector<std::string> lines;
  std::istringstream text(trips::slurp(out / "train.jsonl"));
  for (std::string line; std::getline(text, line);) {
    Json json = parse_json(line, "train.jsonl");
    json.erase("tokens_per_second");
    lines.push_back(json.dump());
  }
  return lines;
}

TEST(Train, MakesAModelThatRunsAndHasLearned) {
  const TemporaryFolder folder;
  const trips::Result result = trips::run(arguments(folder, "m", {"--valid", trips::kDemoText, "--eval-every", "20"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json record = read_json(folder / "m/training.json");
  EXPECT_EQ(record["schema"], "kedge.train/1");
  EXPECT_EQ(record["results"]["tokens"], 40 * 2 * 32);
  EXPECT_LT(record["results"]["valid_loss"], std::log(4096.0) - 0.8);
  EXPECT_EQ(record["results"]["expert_load"].size(), 2u);
  EXPECT_EQ(losses(folder / "m").size(), 42u);
  const std::string page = trips::slurp(folder / "m/training.html");
  for (const char* words : {"Busiest expert over the mean", "Load on the validation text", "validation", "<svg"}) {
    EXPECT_NE(page.find(words), std::string::npos) << words;
  }
  EXPECT_EQ(page.find("http"), page.find("http://www.w3.org"));  // names of XML at most
  EXPECT_EQ(Checkpoint::open(folder / "m").config()["dtype"], "bfloat16");
  EXPECT_EQ(trips::run({"run", (folder / "m").string(), "-p", "It was", "-n", "3"}).exit_code, 0);
  // The measurement is that of kedge perplexity on the same sequences.
  const trips::Result perplexity = trips::run({"perplexity", (folder / "m/checkpoint-000040").string(), "--text",
                                               trips::kDemoText, "--seqlen", "32", "--limit", "64", "--json"});
  ASSERT_EQ(perplexity.exit_code, 0) << perplexity.err;
  EXPECT_NEAR(parse_json(perplexity.out, "perplexity")["results"]["mean_nll"].get<double>(),
              record["results"]["valid_loss"].get<double>(), 1e-4);
  // Finished is finished.
  const trips::Result again = trips::run(arguments(folder, "m"));
  EXPECT_EQ(again.exit_code, static_cast<int>(ErrorCode::exists)) << again.err;
}

TEST(Train, KilledFiveTimesGivesTheLossesOfAnUndisturbedRun) {
  const TemporaryFolder folder;
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(trips::run(arguments(folder, "whole", {"--optimizer", "muon"})).exit_code, 0);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  Rng rng(static_cast<std::uint64_t>(::getpid()));
  int kills = 0;
  trips::Result last;
  for (int call = 0; call < 6; ++call) {
    trips::Call run;
    run.arguments = arguments(folder, "killed", {"--optimizer", "muon"});
    if (call < 5)
      run.kill_after = std::chrono::microseconds(
          whole.count() / 20 + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(whole.count() / 4))));
    last = trips::run(run);
    kills += last.exit_code == 128 + SIGKILL;
    if (fs::exists(folder / "killed/training.json")) break;
  }
  ASSERT_TRUE(fs::exists(folder / "killed/training.json")) << last.err;
  EXPECT_GE(kills, 3);
  std::printf("%d kills\n", kills);
  EXPECT_EQ(losses(folder / "killed"), losses(folder / "whole"));
  EXPECT_EQ(trips::slurp(folder / "killed/model.safetensors"), trips::slurp(folder / "whole/model.safetensors"));
}

#ifdef KEDGE_MPIRUN
TEST(Train, TwoProcessesEqualOneAndGoOn) {
  const TemporaryFolder folder;
  ASSERT_EQ(trips::run(arguments(folder, "one")).exit_code, 0);
  const auto two = [&](const std::vector<std::string>& extra) {
    trips::Call call;
    call.program = KEDGE_MPIRUN;
    call.arguments = {"--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1",
                      "--mca", "btl_vader_single_copy_mechanism", "none", "-n", "2", KEDGE_BINARY};
    for (const std::string& word : arguments(folder, "two", extra)) call.arguments.push_back(word);
    return trips::run(call);
  };
  const trips::Result result = two({});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto one_rank = losses(folder / "one"), two_ranks = losses(folder / "two");
  ASSERT_EQ(two_ranks.size(), one_rank.size());
  const auto loss = [](const std::string& line) { return parse_json(line, "train.jsonl")["loss"].get<double>(); };
  for (std::size_t i = 0; i < one_rank.size(); ++i) EXPECT_NEAR(loss(two_ranks[i]), loss(one_rank[i]), 1e-5) << i;
  const trips::Result again = two({});
  EXPECT_EQ(again.exit_code, static_cast<int>(ErrorCode::exists)) << again.err;
  const trips::Result odd = two({"--batch-size", "3"});
  EXPECT_NE(odd.err.find("a multiple of the number of ranks"), std::string::npos) << odd.err;
}
#endif

TEST(Train, MaskedDiffusionLearnsAndIsScored) {
  const TemporaryFolder folder;
  const trips::Result result =
      trips::run(arguments(folder, "m", {"--objective", "masked-diffusion", "--valid", trips::kDemoText}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json record = read_json(folder / "m/training.json");
  EXPECT_LT(record["results"]["valid_loss"], std::log(4096.0) - 0.8);
  const Json config = read_json(folder / "m/config.json");
  EXPECT_EQ(config["mask_token_id"], 4096);
  EXPECT_EQ(config["vocab_size"], 4097);
  const trips::Result answers = trips::run({"eval", (folder / "m").string(), "--tasks", "piqa", "--limit", "4",
                                            "--mc-samples", "8", "--json", "--out", (folder / "answers").string()});
  ASSERT_EQ(answers.exit_code, 0) << answers.err;
  const Json results = parse_json(answers.out, "eval");
  EXPECT_TRUE(results["results"]["confidence"]["piqa"].contains("diffusion")) << answers.out;
  EXPECT_EQ(results["config"]["mc_samples"], 8);
  const std::string samples = trips::slurp(folder / "answers/samples_piqa.jsonl");
  EXPECT_NE(samples.find("standard_errors"), std::string::npos);
  const trips::Result writes = trips::run({"run", (folder / "m").string(), "-p", "It was"});
  EXPECT_EQ(writes.exit_code, static_cast<int>(ErrorCode::unsupported));
  EXPECT_NE(writes.err.find("masked-diffusion model"), std::string::npos) << writes.err;
}

TEST(Train, CtrlCWritesACheckpointAndTheSameCommandGoesOn) {
  const TemporaryFolder folder;
  ASSERT_EQ(trips::run(arguments(folder, "whole")).exit_code, 0);
  const auto words = arguments(folder, "stopped", {"--save-every", "0"});
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> argv{const_cast<char*>(KEDGE_BINARY)};
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::freopen("/dev/null", "w", stderr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  // Once a step is on record.
  for (int i = 0;
       i < 2000 && (!fs::exists(folder / "stopped/train.jsonl") || fs::file_size(folder / "stopped/train.jsonl") == 0);
       ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 130) {
    const auto lines = losses(folder / "stopped");
    const bool saved =
        std::any_of(fs::directory_iterator(folder / "stopped"), fs::directory_iterator(),
                    [](const auto& e) { return e.path().filename().string().starts_with("checkpoint-"); });
    EXPECT_TRUE(saved) << lines.size() << " steps";
    ASSERT_EQ(trips::run(words).exit_code, 0);
  } else {
    ASSERT_EQ(WEXITSTATUS(status), 0);  // it was faster than the signal
  }
  EXPECT_EQ(losses(folder / "stopped"), losses(folder / "whole"));
}

TEST(Train, BadInputIsNamed) {
  const TemporaryFolder folder;
  const auto expect = [&](ErrorCode code, const std::string& words, const std::vector<std::string>& flags) {
    const trips::Result result = trips::run(arguments(folder, "bad", flags));
    EXPECT_EQ(result.exit_code, static_cast<int>(code)) << result.err;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(folder / "bad/model.safetensors"));
  };
  trips::spit(folder / "empty.txt", "");
  trips::spit(folder / "short.txt", "A few words.");
  expect(ErrorCode::usage, "is empty", {"--text", (folder / "empty.txt").string()});
  expect(ErrorCode::usage, "fewer than 32 tokens", {"--text", (folder / "short.txt").string()});
  expect(ErrorCode::not_found, "no such file", {"--text", (folder / "none.txt").string()});
  expect(ErrorCode::usage, "at most 1024", {"--seqlen", "2000"});
  expect(ErrorCode::usage, "eps", {"--eps", "0"});
  expect(ErrorCode::usage, "no such device", {"--device", "tpu"});
  expect(ErrorCode::mismatch, "other shapes", {"--init", trips::kDemo});
  // The last good checkpoint of a run that diverges stays.
  const trips::Result diverged = trips::run(arguments(folder, "diverged",
                                                      {"--lr", "1000", "--clip", "0", "--warmup-ratio", "0",
                                                       "--weight-decay", "1000", "--save-every", "1", "--keep", "99"}));
  EXPECT_EQ(diverged.exit_code, static_cast<int>(ErrorCode::unsupported)) << diverged.err;
  EXPECT_NE(diverged.err.find("step "), std::string::npos) << diverged.err;
  EXPECT_TRUE(fs::exists(folder / "diverged/checkpoint-000001/model.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "diverged/model.safetensors"));
  Json small = read_json(folder / "config.json");
  small["vocab_size"] = 100;
  trips::spit(folder / "small.json", small.dump());
  expect(ErrorCode::mismatch, "vocabulary", {"--config", (folder / "small.json").string()});
  EXPECT_EQ(trips::run({"train"}).exit_code, static_cast<int>(ErrorCode::usage));
  EXPECT_EQ(trips::run({"train", "lm", "--out", (folder / "x").string()}).exit_code,
            static_cast<int>(ErrorCode::usage));
}

TEST(Train, AnotherRunsFolderIsRefused) {
  const TemporaryFolder folder;
  trips::Call call;
  call.arguments = arguments(folder, "a", {"--steps", "1000000"});
  call.kill_after = std::chrono::seconds(4);
  while (!fs::exists(folder / "a") ||
         std::none_of(fs::directory_iterator(folder / "a"), fs::directory_iterator(), [](const auto& e) {
           return e.path().filename().string().starts_with("checkpoint-") && e.path().extension().empty();
         })) {
    ASSERT_EQ(trips::run(call).exit_code, 128 + SIGKILL);
  }
  const trips::Result other = trips::run(arguments(folder, "a", {"--steps", "1000000", "--lr", "0.5"}));
  EXPECT_EQ(other.exit_code, static_cast<int>(ErrorCode::mismatch)) << other.err;
  EXPECT_NE(other.err.find("lr 0.01"), std::string::npos) << other.err;
}

}  // namespace
}  // namespace kedge
#endif
