// Work that is shared by ranks: the same results as one rank's, bit for bit; a rank that dies ends the others.
#include <algorithm>
#include <cstdio>
#include <thread>

#include "base/json.h"
#include "comm/communicator.h"
#include "kedge/audit.h"
#include "kedge/error.h"
#include "kedge/evaluate.h"
#include "kedge/quantize.h"
#include "process.h"

namespace kedge {
namespace {

using trips::kDemo;
using trips::kDemoText;
using trips::run;
using trips::slurp;
using trips::TemporaryFolder;
namespace fs = std::filesystem;

// f(ranks) on each of `size` ranks, threads of this process; an Error of one ends the others.
template <class F>
void on_ranks(int size, F f) {
  auto ranks = thread_ranks(size);
  std::vector<std::thread> threads;
  for (auto& rank : ranks) {
    threads.emplace_back([&f, &rank] {
      try {
        f(*rank);
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
        rank->abort(error.exit_code());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class Ranks : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    QuantizeOptions options;
    options.source = kDemo;
    options.destination = *folder_ / "w3";
    options.scheme = "w3a16-g64";
    options.method = "rtn";
    quantize(options);
  }
  static void TearDownTestSuite() { delete folder_; }
  static fs::path w3() { return *folder_ / "w3"; }
  static TemporaryFolder* folder_;
};
TemporaryFolder* Ranks::folder_ = nullptr;

// All that does not say when and how it was run.
Json results_of(const fs::path& file) {
  Json report = read_json(file);
  report.erase("provenance");
  for (const char* volatile_key : {"seconds", "load_seconds", "score_seconds", "tokens_computed", "tokens_asked"}) {
    if (report.contains("results")) report["results"].erase(volatile_key);
  }
  return report;
}

TEST_F(Ranks, AuditIsTheSameForAnyNumberOfThem) {
  const TemporaryFolder folder;
  AuditOptions options;
  options.original = kDemo;
  options.quantized = w3();
  options.texts = {kDemoText};
  options.seqlen = 48;
  options.limit = 7;  // not a multiple of the ranks
  options.mode = AuditMode::both;
  options.save_traces = true;
  options.runtime.threads = 1;
  for (const int size : {1, 2, 3}) {
    options.out = folder / std::to_string(size);
    on_ranks(size, [&](Communicator& ranks) { audit(options, size == 1 ? nullptr : &ranks); });
  }
  const Json alone = results_of(folder / "1" / "report.json");
  EXPECT_GT(alone["results"].size(), 3u);
  for (const char* size : {"2", "3"}) {
    EXPECT_EQ(results_of(folder / size / "report.json"), alone) << size;
    for (const char* trace : {"original.trace.safetensors", "quantized.trace.safetensors"}) {
      EXPECT_EQ(slurp(folder / size / trace), slurp(folder / "1" / trace)) << size << " " << trace;
    }
  }
}

// Routing by error is traced with errors and norms, which travel with the rest; sequences of unequal length.
TEST_F(Ranks, TracesOfErrorRoutersAreWhole) {
  const TemporaryFolder folder;
  fs::copy(fs::path(KEDGE_SOURCE_DIR) / "tests/goldens/mcqsmoe/lm", folder / "model");
  fs::copy_file(fs::path(KEDGE_SOURCE_DIR) / "tests/fixtures/bytes/tokenizer.json", folder / "model/tokenizer.json");
  AuditOptions options;
  options.original = options.quantized = folder / "model";
  for (const char* text : {"!#$%&'()*+,-", "/.-,+*)('&%$#\"! ", "+-+-+-+-"}) {  // its vocabulary is bytes below 48
    options.texts.push_back(folder / std::to_string(options.texts.size()));
    trips::spit(options.texts.back(), text);
  }
  options.seqlen = 16;
  options.save_traces = true;
  options.runtime.threads = 1;
  for (const int size : {1, 2}) {
    options.out = folder / ("out" + std::to_string(size));
    on_ranks(size, [&](Communicator& ranks) { audit(options, size == 1 ? nullptr : &ranks); });
  }
  const std::string trace = slurp(folder / "out1/original.trace.safetensors");
  EXPECT_NE(trace.find("all_errors.0"), std::string::npos);
  EXPECT_EQ(slurp(folder / "out2/original.trace.safetensors"), trace);
}

TEST_F(Ranks, EvalIsTheSameForAnyNumberOfThem) {
  const TemporaryFolder folder;
  EvaluateOptions options;
  options.model = kDemo;
  options.tasks = {"piqa", "lambada_openai", "gsm8k"};
  options.limit = 6;
  options.runtime.threads = 1;
  for (const int size : {1, 2, 3}) {
    options.out = folder / std::to_string(size);
    on_ranks(size, [&](Communicator& ranks) { evaluate(options, size == 1 ? nullptr : &ranks); });
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder / "1")) names.push_back(entry.path().filename());
  EXPECT_EQ(names.size(), 4u);
  for (const char* size : {"2", "3"}) {
    EXPECT_FALSE(fs::exists(folder / size / "progress.jsonl"));
    for (const std::string& name : names) {
      SCOPED_TRACE(size + (" " + name));
      if (name == "results.json") {
        EXPECT_EQ(results_of(folder / size / name)["results"], results_of(folder / "1" / name)["results"]);
      } else {
        EXPECT_EQ(slurp(folder / size / name), slurp(folder / "1" / name));
      }
    }
  }
}

// A rank that is stopped when it has scored a task and hands in its share.
class StoppedRank : public Communicator {
 public:
  StoppedRank(Communicator& inner, int gathers) : inner_(inner), left_(gathers) {}
  int rank() const noexcept override { return inner_.rank(); }
  int size() const noexcept override { return inner_.size(); }
  std::vector<std::string> gather(std::string_view bytes) override {
    if (left_-- == 0) throw Error(ErrorCode::interrupted, "stopped by the test");
    return inner_.gather(bytes);
  }
  std::string broadcast(std::string_view bytes) override { return inner_.broadcast(bytes); }
  void abort(int code) noexcept override { inner_.abort(code); }

 private:
  Communicator& inner_;
  int left_;
};

TEST_F(Ranks, AStoppedEvalGoesOnWithTheAnswersOfAllRanks) {
  const TemporaryFolder folder;
  EvaluateOptions options;
  options.model = kDemo;
  options.tasks = {"piqa", "lambada_openai"};
  options.limit = 8;
  options.runtime.threads = 1;
  options.out = folder / "alone";
  evaluate(options);
  for (const int size : {1, 2, 3}) {
    SCOPED_TRACE(size);
    options.out = folder / std::to_string(size);
    on_ranks(2, [&](Communicator& ranks) {
      StoppedRank stopped(ranks, 2);
      EXPECT_THROW(evaluate(options, &stopped), Error);
    });
    const auto lines = [&](const char* name) {
      const std::string text = slurp(options.out / name);
      return std::count(text.begin(), text.end(), '\n');
    };
    EXPECT_GT(lines("progress.jsonl"), 1);
    EXPECT_GT(lines("progress-1.jsonl"), 1);
    const std::int64_t kept = lines("progress.jsonl") + lines("progress-1.jsonl") - 2;
    on_ranks(size, [&](Communicator& ranks) {
      const EvaluateResult result = evaluate(options, size == 1 ? nullptr : &ranks);
      if (ranks.is_root()) {
        EXPECT_EQ(result.requests_resumed, kept);
      }
    });
    Json ours = results_of(options.out / "results.json")["results"],
         all = results_of(folder / "alone" / "results.json")["results"];
    for (Json* json : {&ours, &all}) json->erase("requests_resumed");
    EXPECT_EQ(ours, all);
    EXPECT_FALSE(fs::exists(options.out / "progress.jsonl") || fs::exists(options.out / "progress-1.jsonl"));
  }
}

QuantizeOptions calibrated(const std::string& method, const fs::path& destination) {
  QuantizeOptions options;
  options.source = kDemo;
  options.destination = destination;
  options.scheme = "w3a16-g128";
  options.method = method;
  options.router_refit = true;
  options.calibration.nsamples = 7;  // not a multiple of the ranks
  options.calibration.seqlen = 64;
  options.threads = 1;
  return options;
}

/// Whether one of the two calibrated the module's expert on its own tokens and the other on all.
bool calibrated_differently(const Json& a, const Json& b, const std::string& module) {
  int layer = 0, expert = 0;
  if (std::sscanf(module.c_str(), "model.layers.%d.mlp.experts.%d.", &layer, &expert) != 2) return false;
  const auto few = [&](const Json& manifest) {
    return manifest["layers"][layer]["expert_tokens"][expert].get<std::int64_t>() < QuantizeOptions{}.min_expert_tokens;
  };
  return few(a) != few(b);
}

/// Errors of states and modules, relative. Rounding with feedback goes other ways from the smallest difference on: what
/// is quantized first tells whether the sums are right, the rest that nothing went astray.
void expect_near(const fs::path& ours, const fs::path& theirs, double first) {
  const Json a = read_json(ours / "kedge.manifest.json"), b = read_json(theirs / "kedge.manifest.json");
  const auto expect = [](const Json& x, const Json& y, const char* key, double tolerance) {
    EXPECT_NEAR(x[key].get<double>(), y[key].get<double>(), tolerance * y[key].get<double>()) << x;
  };
  ASSERT_EQ(a["layers"].size(), b["layers"].size());
  for (std::size_t l = 0; l < a["layers"].size(); ++l) {
    expect(a["layers"][l], b["layers"][l], "state_error", 0.1);
    std::int64_t tokens[2] = {0, 0};
    for (const Json& count : a["layers"][l]["expert_tokens"]) tokens[0] += count.get<std::int64_t>();
    for (const Json& count : b["layers"][l]["expert_tokens"]) tokens[1] += count.get<std::int64_t>();
    EXPECT_EQ(tokens[0], tokens[1]) << l;
  }
  for (std::size_t m = 0; m < a["modules"].size(); ++m) {
    if (!a["modules"][m].contains("relative_rms_error")) continue;
    const std::string name = a["modules"][m]["name"];
    if (calibrated_differently(a, b, name)) continue;
    const bool is_first = name.starts_with("model.layers.0.self_attn.") && !name.ends_with("o_proj");
    expect(a["modules"][m], b["modules"][m], "relative_rms_error", is_first ? first : 0.1);
  }
}

TEST_F(Ranks, CalibrationIsTheSumOfTheirSequences) {
  const TemporaryFolder folder;
  // kedge draws signs for its metric, other ones for tokens of other ranks.
  for (const auto& [method, first] : {std::pair("kedge", 0.02), std::pair("gptaq", 1e-3), std::pair("awq", 1e-3)}) {
    SCOPED_TRACE(method);
    const auto to = [&](const std::string& name) { return folder / (std::string(method) + name); };
    quantize(calibrated(method, to("1")));
    for (const int size : {2, 3}) {
      const fs::path out = to(std::to_string(size)), again = to(std::to_string(size) + "again");
      for (const fs::path& path : {out, again}) {
        on_ranks(size, [&](Communicator& ranks) { quantize(calibrated(method, path), nullptr, &ranks); });
      }
      EXPECT_EQ(trips::folder_content(out), trips::folder_content(again));
      expect_near(out, to("1"), first);
      EXPECT_EQ(read_json(out / "kedge.manifest.json")["calibration"]["ranks"], size);
      EXPECT_NE(slurp(out / "model.safetensors"), slurp(to("1") / "model.safetensors")) << "nothing was shared";
    }
  }
}

TEST_F(Ranks, AStoppedCalibrationGoesOnToTheSameBytes) {
  const TemporaryFolder folder;
  on_ranks(2, [&](Communicator& ranks) { quantize(calibrated("kedge", folder / "whole"), nullptr, &ranks); });
  for (const int gathers : {3, 120, 300}) {
    SCOPED_TRACE(gathers);
    const fs::path out = folder / std::to_string(gathers);
    on_ranks(2, [&](Communicator& ranks) {
      StoppedRank stopped(ranks, gathers);
      EXPECT_THROW(quantize(calibrated("kedge", out), nullptr, &stopped), Error);
    });
    EXPECT_FALSE(fs::exists(out));
    on_ranks(2, [&](Communicator& ranks) { quantize(calibrated("kedge", out), nullptr, &ranks); });
    EXPECT_EQ(trips::folder_content(out), trips::folder_content(folder / "whole"));
  }
}

TEST_F(Ranks, WhatTheyCannotShareTheyRefuse) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](const QuantizeOptions& options, const char* message) {
    on_ranks(2, [&](Communicator& ranks) {
      try {
        quantize(options, nullptr, &ranks);
        ADD_FAILURE() << message;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
      }
    });
    EXPECT_FALSE(fs::exists(options.destination));
  };
  QuantizeOptions options = calibrated("rtn", folder / "out");
  options.router_refit = false;
  expect_refused(options, "does not share its work");
  options = calibrated("gptq", folder / "out");
  options.calibration.nsamples = 1;
  expect_refused(options, "1 calibration sequences for 2 ranks");
}

TEST_F(Ranks, AnErrorOfOneIsAnErrorOfAll) {
  AuditOptions options;
  options.original = kDemo;
  options.quantized = w3();
  options.texts = {kDemoText};
  options.seqlen = 16;
  options.limit = 4;
  const TemporaryFolder folder;
  options.out = folder / "out";
  fs::create_directories(options.out);
  trips::spit(options.out / "report.json", "{}");  // rank 0 alone refuses to write over it
  auto ranks = thread_ranks(2);
  int refused = 0;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (auto& rank : ranks) {
    threads.emplace_back([&] {
      try {
        audit(options, rank.get());
      } catch (const Error&) {
        rank->abort(1);
        const std::lock_guard lock(mutex);
        ++refused;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(refused, 2);
}

TEST_F(Ranks, CommandsThatDoNotShareSaySo) {
  trips::Call call;
  call.arguments = {"run", kDemo, "-p", "x"};
  call.environment = {"OMPI_COMM_WORLD_SIZE=2"};
  const trips::Result result = run(call);
  EXPECT_EQ(result.exit_code, static_cast<int>(ErrorCode::usage));
  EXPECT_NE(result.err.find("does not share its work"), std::string::npos) << result.err;
}

#ifdef KEDGE_MPIRUN
trips::Result under_mpirun(const std::string& size, const std::vector<std::string>& words) {
  trips::Call call;
  call.program = KEDGE_MPIRUN;
  call.arguments = {"--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--mca",
                    "btl_vader_single_copy_mechanism", "none", "-n", size, KEDGE_BINARY};
  call.arguments.insert(call.arguments.end(), words.begin(), words.end());
  return run(call);
}

TEST_F(Ranks, ProcessesOfMpirunGiveTheSameAudit) {
  const TemporaryFolder folder;
  const auto words = [&](const std::string& out) {
    return std::vector<std::string>{"audit",    kDemo,     w3().string(), "--text",    kDemoText, "--seqlen", "32",
                                    "--limit",  "5",       "--threads",   "1",         "--out",            (folder / out).string()};
  };
  ASSERT_EQ(run(words("alone")).exit_code, 0);
  const trips::Result two = under_mpirun("2", words("two"));
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_EQ(results_of(folder / "two" / "report.json"), results_of(folder / "alone" / "report.json"));
  EXPECT_EQ(two.out.find("Jaccard"), two.out.rfind("Jaccard")) << "printed by more than one rank";

  const trips::Result again = under_mpirun("2", words("two"));
  EXPECT_NE(again.exit_code, 0);
  EXPECT_NE(again.err.find("report.json"), std::string::npos) << again.err;
}

TEST_F(Ranks, ProcessesOfMpirunQuantizeAsThreadsDo) {
  const TemporaryFolder folder;
  on_ranks(2, [&](Communicator& ranks) { quantize(calibrated("gptq", folder / "threads"), nullptr, &ranks); });
  const trips::Result two =
      under_mpirun("2", {"quantize", kDemo, (folder / "processes").string(), "--scheme", "w3a16-g128", "--method",
                         "gptq", "--router-refit", "on", "--nsamples", "7", "--seqlen", "64", "--threads", "1"});
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_EQ(trips::folder_content(folder / "processes"), trips::folder_content(folder / "threads"));
  EXPECT_EQ(two.out.find("attention"), two.out.rfind("attention")) << "printed by more than one rank";
  const trips::Result refused = under_mpirun("2", {"quantize", kDemo, (folder / "rtn").string(), "--method", "rtn"});
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_NE(refused.err.find("does not share its work"), std::string::npos) << refused.err;
}
#endif

}  // namespace
}  // namespace kedge
