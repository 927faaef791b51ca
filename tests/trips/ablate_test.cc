// The ablation trip: records that stand on their own, resumption after a kill, one layer at a time, recipes' errors.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "claims/method_keys.h"
#include "cli/command.h"
#include "io/checkpoint.h"
#include "kedge/ablate.h"
#include "kedge/error.h"
#include "kedge/evaluate.h"
#include "process.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;
using trips::TemporaryFolder;

// Two seeds, two methods, one of them without calibration data: three runs.
std::string small_recipe(const std::string& more = {}) {
  return "models = [\"" + trips::kDemo + "\"]\ntexts = [\"" + trips::kDemoText + R"("]
schemes = ["w2a16-g128"]
seeds = [1, 2]
baseline = "nearest"
[calibration]
nsamples = 4
seqlen = 64
[audit]
seqlen = 64
limit = 4
[[methods]]
name = "nearest"
method = "rtn"
[[methods]]
name = "feedback, refit"
method = "gptq"
router-refit = true
)" + more;
}

trips::Call call_for(const fs::path& recipe, const fs::path& out, const std::vector<std::string>& more = {}) {
  trips::Call call;
  call.arguments = {"ablate", recipe.string(), "--out", out.string(), "--threads", "2", "--quiet"};
  call.arguments.insert(call.arguments.end(), more.begin(), more.end());
  return call;
}

// All that does not depend on time and on what was there before.
std::string figures_of(const fs::path& file) {
  Json json = read_json(file);
  for (const char* key : {"seconds", "runs_done", "runs_resumed"}) json["results"].erase(key);
  for (Json& table : json["results"]["tables"]) {
    for (Json& method : table["methods"]) method.erase("seconds");
  }
  for (Json& sample : json["samples"]) sample.erase("seconds");
  return json["results"].dump() + json["samples"].dump();
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(AblateTrip, RecordsTablesAndPages) {
  const TemporaryFolder folder;
  trips::spit(folder / "r.toml", small_recipe());
  const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("feedback, refit"), std::string::npos);
  EXPECT_EQ(names_in(folder / "out"),
            (std::vector<std::string>{"ablation.html", "ablation.json", "ablation.md", "runs"}));
  EXPECT_EQ(names_in(folder / "out/runs").size(), 3u);

  const Json json = read_json(folder / "out/ablation.json");
  EXPECT_EQ(json["schema"], "kedge.ablation/1");
  ASSERT_EQ(json["samples"].size(), 3u);
  std::set<std::string> hashes;
  for (const Json& sample : json["samples"]) {
    const Json record = read_json(folder / "out/runs" / sample["record"].get<std::string>());
    EXPECT_EQ(record["schema"], "kedge.ablation-run/1");
    EXPECT_EQ(record["config"]["seed"], sample["seed"]);
    EXPECT_EQ(record["config"]["method"]["name"], sample["method"]);
    EXPECT_DOUBLE_EQ(1 - record["results"]["mean"]["jaccard"]["mean"].get<double>(),
                     sample["one_minus_jaccard"].get<double>());
    EXPECT_EQ(record["results"]["mean"]["kld"]["mean"], sample["kld"]);
    EXPECT_EQ(record["samples"].size(), 4u);
    EXPECT_EQ(record["provenance"]["inputs"].back()["role"], "recipe");
    hashes.insert(record["results"]["quantized_sha256"].get<std::string>());
  }
  EXPECT_EQ(hashes.size(), 3u);  // two seeds give two models

  const Json& methods = json["results"]["tables"][0]["methods"];
  EXPECT_EQ(methods[0]["one_minus_jaccard"]["n"], 1);
  EXPECT_EQ(methods[1]["one_minus_jaccard"]["n"], 2);
  EXPECT_LT(methods[1]["one_minus_jaccard_change"]["mean"].get<double>(), 0);
  EXPECT_LT(methods[1]["one_minus_jaccard_change"]["low"].get<double>(),
            methods[1]["one_minus_jaccard_change"]["mean"].get<double>());
  EXPECT_EQ(trips::slurp(folder / "out/ablation.html").find("src="), std::string::npos);
}

TEST(AblateTrip, TasksAreScoredAsKedgeEvalDoes) {
  const TemporaryFolder folder;
  trips::spit(folder / "r.toml", small_recipe("[eval]\ntasks = [\"mmlu_tiny\", \"hellaswag\"]\nlimit = 12\n"));
  const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out", {"--keep"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("hellaswag (12)"), std::string::npos) << result.out;
  const auto accuracies = [](const fs::path& model) {
    EvaluateOptions options;
    options.model = model;
    options.tasks = {"mmlu_tiny", "hellaswag"};
    options.limit = 12;
    std::map<std::string, double> out;
    for (const EvaluateTask& task : evaluate(options).tasks) out[task.name] = task.metrics.at(0).value;
    return out;
  };
  std::map<std::string, double> original = accuracies(trips::kDemo);
  const Json json = read_json(folder / "out/ablation.json");
  const Json& table = json["results"]["tables"][0];
  ASSERT_EQ(table["tasks"].size(), 2u);
  for (const Json& task : table["tasks"]) {
    EXPECT_EQ(task["metric"], "acc,none");
    EXPECT_EQ(task["original"].get<double>(), original.at(task["name"]));
  }
  bool moved = false;
  for (const Json& sample : json["samples"]) {
    const std::string stem = fs::path(sample["record"].get<std::string>()).stem().string();
    std::map<std::string, double> quantized = accuracies(folder / "out/models" / stem);
    ASSERT_EQ(sample["tasks"].size(), 2u);
    for (const Json& task : sample["tasks"]) {
      EXPECT_EQ(task["quantized"].get<double>(), quantized.at(task["name"])) << stem;
      moved = moved || task["quantized"] != task["original"];
    }
  }
  EXPECT_TRUE(moved);
  const Json& method = table["methods"][1];
  EXPECT_NEAR(method["tasks"][0]["change"]["mean"].get<double>(),
              method["tasks"][0]["accuracy"]["mean"].get<double>() - original.at(table["tasks"][0]["name"]), 1e-12);
  EXPECT_NE(trips::slurp(folder / "out/ablation.html").find("hellaswag"), std::string::npos);

  trips::spit(folder / "bad.toml", small_recipe("[eval]\ntasks = [\"text\"]\n"));
  const trips::Result refused = trips::run(call_for(folder / "bad.toml", folder / "bad"));
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_NE(refused.err.find("[eval]"), std::string::npos) << refused.err;
  EXPECT_EQ(names_in(folder / "bad/runs").size(), 0u);
}

TEST(AblateTrip, KilledAndResumedGivesTheSameFigures) {
  const TemporaryFolder folder;
  trips::spit(folder / "r.toml", small_recipe());
  const auto start = std::chrono::steady_clock::now();
  const trips::Result undisturbed = trips::run(call_for(folder / "r.toml", folder / "whole"));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  const std::string expected = figures_of(folder / "whole/ablation.json");

  Rng rng(4);
  int killed = 0;
  std::size_t kept = 0;
  for (int round = 0; round < 4; ++round) {
    SCOPED_TRACE(round);
    const fs::path out = folder / ("killed-" + std::to_string(round));
    trips::Call first = call_for(folder / "r.toml", out);
    first.kill_after =
        std::chrono::microseconds(1 + static_cast<std::int64_t>((round + rng.uniform()) / 4 * double(took.count())));
    killed += trips::run(first).exit_code == 128 + SIGKILL ? 1 : 0;
    const auto before =
        fs::exists(out / "runs") ? trips::folder_content(out / "runs") : std::map<std::string, std::string>{};
    const trips::Result second = trips::run(call_for(folder / "r.toml", out, {"--resume"}));
    ASSERT_EQ(second.exit_code, 0) << second.err;
    EXPECT_EQ(figures_of(out / "ablation.json"), expected);
    EXPECT_FALSE(fs::exists(out / "models"));
    const auto after = trips::folder_content(out / "runs");
    for (const auto& [name, text] : before) {
      if (!name.ends_with(".json")) continue;  // a temporary of the killed process
      EXPECT_EQ(after.at(name), text);
      ++kept;
    }
  }
  EXPECT_GE(killed, 2);
  EXPECT_GE(kept, 1u);
}

TEST(AblateTrip, ResumesWhatIsTheSameAndNothingElse) {
  const TemporaryFolder folder;
  trips::spit(folder / "r.toml", small_recipe());
  ASSERT_EQ(trips::run(call_for(folder / "r.toml", folder / "out")).exit_code, 0);

  const trips::Result refused = trips::run(call_for(folder / "r.toml", folder / "out"));
  EXPECT_EQ(refused.exit_code, static_cast<int>(ErrorCode::exists));
  EXPECT_NE(refused.err.find("--resume"), std::string::npos) << refused.err;

  const auto counts = [&](int& done, int& resumed) {
    const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out", {"--resume", "--json"}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Json json = parse_json(result.out, "stdout");
    done = json["results"]["runs_done"].get<int>();
    resumed = json["results"]["runs_resumed"].get<int>();
    return result.err;
  };
  int done = 0, resumed = 0;
  counts(done, resumed);
  EXPECT_EQ(done, 0);
  EXPECT_EQ(resumed, 3);

  // A new label, a comment and another place are no new run; a third seed is.
  std::string text = "# a comment\n" + small_recipe();
  text.replace(text.find("name = \"feedback, refit\""), 24, "name = \"better\"");
  trips::spit(folder / "r.toml", text);
  counts(done, resumed);
  EXPECT_EQ(done, 0);
  text.replace(text.find("seeds = [1, 2]"), 14, "seeds = [1, 2, 3]");
  trips::spit(folder / "r.toml", text);
  counts(done, resumed);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(resumed, 3);

  // Other audits are other runs.
  text.replace(text.find("limit = 4"), 9, "limit = 3");
  trips::spit(folder / "r.toml", text);
  counts(done, resumed);
  EXPECT_EQ(done, 4);

  const Json json = read_json(folder / "out/ablation.json");
  trips::spit(folder / "out/runs" / json["samples"][0]["record"].get<std::string>(), "{\"schema\": ");
  const std::string err = counts(done, resumed);
  EXPECT_EQ(done, 1);
  EXPECT_NE(err.find("warning: "), std::string::npos) << err;
}

// A layer's quantization reaches itself and what comes after it, and nothing before.
TEST(AblateTrip, OneLayerAtATime) {
  const TemporaryFolder folder;
  trips::spit(folder / "r.toml", small_recipe("[sensitivity]\nlayers = true\nwhole = false\n"));
  set_quiet(true);
  AblateOptions options;
  options.recipe = folder / "r.toml";
  options.out = folder / "out";
  options.keep = true;
  options.runtime.threads = 2;
  const AblationReport report = ablate(options);
  EXPECT_TRUE(report.tables.empty());
  ASSERT_EQ(report.runs.size(), 12u);  // 4 layers x (1 + 2 seeds)
  for (const AblationRun& run : report.runs) {
    SCOPED_TRACE(run.record);
    ASSERT_EQ(run.layers.size(), 4u);
    for (int l = 0; l < run.layer; ++l) EXPECT_EQ(run.layers[static_cast<std::size_t>(l)], 0);
    EXPECT_EQ(std::isnan(run.changed_after), run.layer == 3);
    EXPECT_GT(run.kld, 0);
    if (run.layer == 3) continue;
    double sum = 0;
    for (std::size_t l = static_cast<std::size_t>(run.layer) + 1; l < 4; ++l) sum += run.layers[l];
    EXPECT_DOUBLE_EQ(run.changed_after, sum / (3 - run.layer));
    EXPECT_GT(run.changed_after, 0);
  }
  ASSERT_EQ(report.mechanisms.size(), 1u);
  EXPECT_EQ(report.mechanisms[0].points, 9);
  EXPECT_EQ(report.mechanisms[0].cells, 6);

  std::size_t models = 0;
  for (const auto& entry : fs::directory_iterator(folder / "out/models")) {
    ++models;
    const std::string name = entry.path().filename().string();
    const std::string own = name.substr(name.find("_layer") + 6, 1);
    const Checkpoint checkpoint = Checkpoint::open(entry.path());
    std::size_t packed = 0;
    for (const TensorInfo& tensor : checkpoint.tensors()) {
      if (!tensor.name.ends_with(".weight_packed")) continue;
      ++packed;
      EXPECT_NE(tensor.name.find(".layers." + own + "."), std::string::npos) << tensor.name;
    }
    EXPECT_EQ(packed, 4u + 16 * 3);
  }
  EXPECT_EQ(models, 12u);
}

TEST(AblateTrip, RecipesAreRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](const std::string& from, const std::string& to, ErrorCode code,
                                  const std::string& words) {
    SCOPED_TRACE(to);
    std::string text = small_recipe();
    text.replace(text.find(from), from.size(), to);
    trips::spit(folder / "r.toml", text);
    const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out"));
    EXPECT_EQ(result.exit_code, static_cast<int>(code)) << result.err;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_FALSE(fs::exists(folder / "out"));
  };
  expect_refused("method = \"gptq\"", "method = \"gtpq\"", ErrorCode::usage, "r.toml:15");
  expect_refused("w2a16-g128", "w2a16-g7", ErrorCode::usage, "w2a16-g7");
  expect_refused("router-refit = true", "override = [\"*.nothing=none\"]", ErrorCode::usage, "*.nothing");
  expect_refused("router-refit = true", "iters", ErrorCode::bad_file, "r.toml:18");
  expect_refused(trips::kDemo, trips::kDemo + "-none", ErrorCode::not_found, "r.toml:1");
}

TEST(AblateTrip, TuningByGradientsIsForKedgeTorch) {
  const TemporaryFolder folder;
  std::string text = small_recipe("iters = 2\nbatch-size = 2\n");
  text.replace(text.find("\"gptq\""), 6, "\"autoround\"");
  trips::spit(folder / "r.toml", text);
  AblateOptions options;
  options.recipe = folder / "r.toml";
  options.out = folder / "out";
  try {
    ablate(options, nullptr);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("r.toml:15"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(folder / "out"));
#ifdef KEDGE_TORCH_BINARY
  const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
#endif
}

TEST(AblateTrip, AFailingRunIsNamedAndTheOthersAreKept) {
  const TemporaryFolder folder;
  std::string text = small_recipe();
  text.replace(text.find("seeds"), 5, "# expert-fallback below\nseeds");
  trips::spit(folder / "r.toml", text + "expert-fallback = \"error\"\n");
  const trips::Result result = trips::run(call_for(folder / "r.toml", folder / "out"));
  EXPECT_NE(result.exit_code, 0);
  EXPECT_NE(result.err.find("r.toml:16: the run demo-4m_w2a16-g128_feedback-refit_seed1_"), std::string::npos)
      << result.err;
  EXPECT_EQ(names_in(folder / "out/runs").size(), 1u);
  trips::spit(folder / "r.toml", text);
  EXPECT_EQ(trips::run(call_for(folder / "r.toml", folder / "out", {"--resume"})).exit_code, 0);
}

// A new flag of kedge quantize is a key of an ablation's methods, or says why it is none.
TEST(AblateTrip, MethodsKnowEveryFlagOfQuantize) {
  const cli::Command* quantize = cli::find_command("quantize");
  ASSERT_NE(quantize, nullptr);
  std::set<std::string> flags, keys;
  for (const cli::Flag& flag : quantize->flags) flags.insert(flag.name);
  for (const MethodKey& key : method_keys()) keys.insert(key.name);
  for (const ForeignKey& key : foreign_keys()) keys.insert(key.name);
  EXPECT_EQ(keys, flags) << "src/claims/method_keys.cc has a row for each flag";
}

}  // namespace
}  // namespace kedge
