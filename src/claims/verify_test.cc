// A run of kedge verify over made-up tracks, and all that can be done to its bundle afterwards: each sabotage fails its
// gate, also when the forger computes tables, page, gates and manifest anew.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <functional>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "claims/bundle.h"
#include "claims/gates.h"
#include "claims/verify_run.h"
#include "claims/verify_summary.h"
#include "kedge/error.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

std::string claim_text(const std::string& track, const std::string& subject, double threshold, double refuted_at,
                       const std::string& gate = "upheld") {
  return "statement = \"It is fast.\"\nclaimed_by = \"us\"\nsource = \"a page\"\ntrack = \"" + track +
         "\"\nsubject = \"" + subject +
         "\"\nmetric = \"m\"\neffect = \"ratio\"\nbaseline = \"the other\"\ntest = \"student-t\"\nrelation = \">=\"\n" +
         "threshold = " + std::to_string(threshold) + "\nrefuted_at = " + std::to_string(refuted_at) + "\ngate = \"" +
         gate + "\"\nn = 4\nseeds = [1, 2, 3, 4]\n";
}

// Twice as fast, with a little noise; the artifact stands for what a track measured.
TrackOutcome outcome_of(const TrackJob& job, const TrackContext& context) {
  TrackOutcome outcome;
  fs::create_directories(context.bundle / "records" / "R");
  const std::string path = "records/R/" + job.claim->name + ".json";
  write_file_atomically(context.bundle / path, "{\"runs\": [{\"id\": 1, \"nested\": {\"skipped\": 0}}]}\n");
  outcome.artifacts.push_back({path, {}});
  outcome.inputs.push_back({"model", "models/demo", "abc"});
  outcome.details = R"({"layers": [{"tests": [{"name": "forward", "outcome": "ran"}]}]})";
  for (const std::uint64_t seed : job.size.seeds) {
    outcome.samples.push_back({"seed " + std::to_string(seed),
                               static_cast<std::int64_t>(seed),
                               {{"subject", 2.0 + 0.01 * double(seed)}, {"baseline", 1.0}}});
  }
  return outcome;
}

void run_all_jobs(std::span<const TrackJob> jobs, const TrackContext& context) {
  for (const TrackJob& job : jobs) context.done(job, outcome_of(job, context));
}
void run_one_job(std::span<const TrackJob> jobs, const TrackContext& context) {
  context.done(jobs[0], outcome_of(jobs[0], context));
  throw Error(ErrorCode::interrupted, "interrupted");
}
void run_into_trouble(std::span<const TrackJob>, const TrackContext&) {
  throw Error(ErrorCode::io, "the disk is full");
}

std::vector<TrackRow> rows_with(void (*run)(std::span<const TrackJob>, const TrackContext&)) {
  return {{"R", "quantize", "routing", nullptr, false, nullptr, run},
          {"Q", "mcqsmoe", "the layer", "kedge has no such layer", false, nullptr, nullptr}};
}

class VerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    set_quiet(true);
    std::string pattern = (fs::temp_directory_path() / "kedge-verify-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    fs::create_directories(root_ / "claims");
    write("claims/fast.toml", claim_text("R", "quantize", 1.5, 1.2));
    write("claims/slow.toml", claim_text("R", "quantize", 3, 2.5, "verdict"));
    options_.claims = root_ / "claims", options_.out = root_ / "bundle", options_.profile = "full";
    options_.runtime.threads = 1;
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) { write_file_atomically(root_ / path, text); }
  VerifyReport run() { return verify_with(options_, {}, rows_with(run_all_jobs)); }
  fs::path bundle() const { return root_ / "bundle"; }

  void edit_text(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = read_file(bundle() / file);
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << file << " holds no " << from;
    write("bundle/" + file, text.replace(at, from.size(), to));
  }
  void edit_json(const std::string& file, const std::function<void(Json&)>& edit) {
    Json json = read_json(bundle() / file);
    edit(json);
    write("bundle/" + file, json.dump(2) + "\n");
  }
  // All that a forger with kedge at hand would compute again.
  void forge_the_rest() {
    const Bundle b = read_bundle(bundle());
    const BundleVerdicts verdicts = judge_bundle(b);
    for (const auto& [path, text] : derived_files(b, verdicts)) write("bundle/" + path, text);
    write_manifest(bundle());
    const auto gates = check_gates(b, verdicts, {{}, false, false});
    write("bundle/gates.json", gates_json(gates));
    write("bundle/index.html", bundle_page(b, verdicts, gates));
    write_manifest(bundle());
  }

  std::vector<VerifyGate> gates(bool with_claims = false, bool allow_not_run = false) {
    return check_bundle(bundle(), with_claims ? root_ / "claims" : fs::path(), allow_not_run).gates;
  }
  void expect_failure(const std::vector<VerifyGate>& gates, char letter, const std::string& sentence) {
    for (const VerifyGate& gate : gates) {
      if (gate.letter != letter) continue;
      const bool said = std::any_of(gate.failures.begin(), gate.failures.end(), [&](const std::string& failure) {
        return failure.find(sentence) != std::string::npos;
      });
      EXPECT_TRUE(said) << "gate " << letter << " does not say: " << sentence;
      for (const std::string& failure : gate.failures) {
        if (!said) ADD_FAILURE() << failure;
      }
    }
  }
  void expect_pass(const std::vector<VerifyGate>& gates) {
    ASSERT_EQ(gates.size(), 8u);
    for (const VerifyGate& gate : gates) {
      for (const std::string& failure : gate.failures) ADD_FAILURE() << "gate " << gate.letter << ": " << failure;
    }
  }

  fs::path root_;
  VerifyOptions options_;
};

TEST_F(VerifyTest, HonestBundlePasses) {
  const VerifyReport report = run();
  expect_pass(report.gates);
  EXPECT_TRUE(report.passed());
  expect_pass(gates(true));
  // The refuted claim of others is reported, first, and fails nothing.
  ASSERT_EQ(report.claims.size(), 2u);
  EXPECT_EQ(report.claims[0].name, "slow");
  EXPECT_EQ(report.claims[0].verdict, "refuted");
  EXPECT_EQ(report.claims[1].verdict, "upheld");
  EXPECT_NE(report.claims[1].measured.find("2.0"), std::string::npos) << report.claims[1].measured;
  EXPECT_NE(read_file(bundle() / "index.html").find("</svg>"), std::string::npos);
  EXPECT_THROW(run(), Error);  // never into a bundle that is there
}

TEST_F(VerifyTest, LatexSaysTheSameAndEscapesWhatLatexWouldRead) {
  Json summary = Json::parse(run().summary_json);
  Json& first = summary["results"]["claims"][0];
  ASSERT_EQ(first["verdict"], "refuted");
  first["statement"] = "5 % of A_b & {C} cost $1 ≥ #2 ~ ^ \\input é 漢";
  const std::string text = latex_report(summary.dump());
  const std::string escaped =
      "5 \\% of A\\_b \\& \\{C\\} cost \\$1 $\\geq$ \\#2 \\~{} \\^{} \\textbackslash{}input é ?";
  EXPECT_NE(text.find("\\textbf{refuted} & " + escaped + " (slow, track"), std::string::npos) << text;
  EXPECT_NE(text.find("\\textbf{refuted}: " + escaped), std::string::npos) << text;
  EXPECT_LT(text.find("\\section*{Proven}"), text.find("\\section*{Not proven}"));
  EXPECT_TRUE(text.ends_with("\\end{document}\n"));
  EXPECT_THROW(latex_report("{}"), Error);
  EXPECT_THROW(latex_report(R"({"schema": "kedge.verify/1"})"), Error);
}

// Two runs of the same claims differ in nothing but times and names of runs.
TEST_F(VerifyTest, FiguresAreOfTheSamplesAlone) {
  run();
  const std::string first = read_file(bundle() / "claims.csv");
  fs::remove_all(bundle());
  run();
  EXPECT_EQ(first, read_file(bundle() / "claims.csv"));
}

TEST_F(VerifyTest, Sabotage01SkippedTest) {
  run();
  edit_json("records/fast.json", [](Json& record) {
    record["samples"][2]["label"] = "seed 3, skipped";
    record["samples"][2]["values"] = Json::object();
  });
  expect_failure(gates(), 'H', "records/fast.json has changed since the bundle was closed");
  forge_the_rest();
  expect_failure(gates(), 'C', "sample \"seed 3, skipped\" was skipped");
  expect_failure(gates(), 'C', "sample \"seed 3, skipped\": there is no subject");
}

TEST_F(VerifyTest, Sabotage02NestedSkip) {
  run();
  edit_json("records/fast.json",
            [](Json& record) { record["results"]["details"]["layers"][0]["tests"][0]["outcome"] = "SKIPPED"; });
  forge_the_rest();
  expect_failure(gates(), 'C', "claim fast skipped something: its record says so at details/layers/0/tests/0/outcome");
  edit_text("records/R/slow.json", "\"skipped\": 0", "\"skipped\": 2");
  forge_the_rest();
  expect_failure(gates(), 'C', "records/R/slow.json/runs/0/nested/skipped");
  expect_failure(gates(), 'D', "records/R/slow.json is not the file that claim slow was taken from");
}

TEST_F(VerifyTest, Sabotage03EditedRecord) {
  run();
  edit_json("records/slow.json", [](Json& record) { record["results"]["estimate"]["effect"] = 3.5; });
  forge_the_rest();
  expect_failure(gates(), 'D', "claim slow: the record says 3.5");
}

TEST_F(VerifyTest, Sabotage04StaleFile) {
  run();
  const std::string stale = read_file(bundle() / "records/fast.json");
  fs::remove_all(bundle());
  run();
  write("bundle/records/fast.json", stale);
  forge_the_rest();
  expect_failure(gates(), 'F', "records/fast.json is stale: it is of the run ");
}

TEST_F(VerifyTest, Sabotage05OneFlippedNumber) {
  run();
  edit_text("records/slow.json", "\"subject\": 2.03", "\"subject\": 4.03");
  expect_failure(gates(), 'H', "records/slow.json has changed");
  expect_failure(gates(), 'D', "claim slow: the record says 2.02 times");
  forge_the_rest();
  expect_failure(gates(), 'D', "claim slow: the record says 2.02 times");
  // In a table alone.
  fs::remove_all(bundle());
  run();
  edit_text("claims.csv", "slow,R,us,records/slow.json", "slow,R,them,records/slow.json");
  write_manifest(bundle());
  expect_failure(gates(), 'D', "claims.csv is not what the records give");
}

TEST_F(VerifyTest, Sabotage06ClaimEditedAfterTheRun) {
  run();
  edit_text("claims/slow.toml", "It is fast", "It is not fast");
  forge_the_rest();
  expect_failure(gates(), 'A', "claim slow was edited after it was registered");
  expect_failure(gates(), 'A', "claim slow was edited after its run");
}

// With every hash in the bundle forged, only the place where claims are registered tells.
TEST_F(VerifyTest, Sabotage07ThresholdLoosened) {
  run();
  edit_text("claims/slow.toml", "threshold = 3.000000", "threshold = 1.500000");
  edit_text("claims/slow.toml", "refuted_at = 2.500000", "refuted_at = 1.200000");
  const fs::path toml = bundle() / "claims/slow.toml";
  const Claim loosened = parse_claim(read_file(toml), toml);
  edit_json("protocol.json", [&](Json& json) { json["claims"][1]["sha256"] = loosened.sha256; });
  const std::string protocol = read_protocol(bundle()).protocol.sha256();
  edit_json("protocol.json", [&](Json& json) { json["sha256"] = protocol; });
  for (const std::string name : {"fast", "slow"}) {
    ClaimRecord record = parse_record(read_json(bundle() / ("records/" + name + ".json")), name);
    record.protocol_sha256 = protocol;
    if (name == "slow") {
      record.claim_sha256 = loosened.sha256;
      record.estimate = estimate(loosened, record.samples);
    }
    write("bundle/records/" + name + ".json", record_json(record).dump(2) + "\n");
  }
  forge_the_rest();
  expect_pass(gates());
  expect_failure(gates(true), 'A', "threshold is 1.5 in the bundle and 3 where it is registered");
}

TEST_F(VerifyTest, Sabotage08TrackPrintedNothing) {
  run();
  write("bundle/logs/R.log", "");
  forge_the_rest();
  expect_failure(gates(), 'G', "track R printed nothing");
  write("bundle/logs/R.log", "claim fast: 4 samples\nclaim slow: 3 samples\n");
  forge_the_rest();
  expect_failure(gates(), 'G', "track R did not reach its end");
  expect_failure(gates(), 'G', "does not say that claim slow gave 4 samples");
}

TEST_F(VerifyTest, Sabotage09MissingSample) {
  run();
  edit_json("records/fast.json", [](Json& record) { record["samples"].erase(1); });
  forge_the_rest();
  expect_failure(gates(), 'C', "claim fast registered 4 samples and its record has 3");
  expect_failure(gates(), 'C', "claim fast registered the seed 2, of which there is no sample");
}

TEST_F(VerifyTest, Sabotage10ManifestEntryRemoved) {
  run();
  std::string manifest = read_file(bundle() / "manifest.sha256");
  const std::size_t at = manifest.find("records/slow.json");
  const std::size_t begin = manifest.rfind('\n', at) + 1;
  write("bundle/manifest.sha256", manifest.erase(begin, manifest.find('\n', at) + 1 - begin));
  expect_failure(gates(), 'H', "records/slow.json is in the bundle and not in the manifest");
  write_manifest(bundle());
  fs::remove(bundle() / "csv/fast.csv");
  expect_failure(gates(), 'H', "csv/fast.csv is in the manifest and not in the bundle");
}

TEST_F(VerifyTest, Sabotage11VerdictEdited) {
  run();
  edit_text("summary.json", "\"verdict\": \"refuted\"", "\"verdict\": \"upheld\"");
  edit_text("index.html", "refuted", "upheld");
  write_manifest(bundle());
  expect_failure(gates(), 'D', "summary.json is not what the records give");
  expect_failure(gates(), 'D', "index.html is not what the records give");
}

TEST_F(VerifyTest, Sabotage12RecordRemovedAndAnotherAdded) {
  run();
  fs::rename(bundle() / "records/slow.json", bundle() / "records/slower.json");
  fs::remove(bundle() / "csv/slow.csv");
  forge_the_rest();
  expect_failure(gates(), 'B', "claim slow has no record");
  expect_failure(gates(), 'B', "records/slower.json is the record of no registered claim");
}

TEST_F(VerifyTest, Sabotage13GatesForged) {
  run();
  edit_json("records/fast.json", [](Json& record) { record["samples"].erase(1); });
  forge_the_rest();
  edit_json("gates.json", [](Json& json) {
    for (Json& gate : json["gates"]) gate["failures"] = Json::array();
  });
  write_manifest(bundle());
  expect_failure(gates(), 'D', "gates.json does not say that gate C failed");
  expect_failure(gates(), 'D', "index.html is not what the records give");
}

TEST_F(VerifyTest, ClaimsThatMustBeUpheldFailTheirGate) {
  write("claims/slow.toml", claim_text("R", "quantize", 3, 2.5));
  const VerifyReport report = run();
  EXPECT_FALSE(report.passed());
  expect_failure(report.gates, 'E', "claim slow is refuted: 2.02 times [");
  expect_failure(gates(), 'E', "claim slow is refuted");
}

TEST_F(VerifyTest, NotRunIsListedFirstAndNeverPasses) {
  write("claims/absent.toml", claim_text("Q", "mcqsmoe", 1.5, 1.2, "verdict"));
  const VerifyReport report = run();
  EXPECT_EQ(report.claims[0].name, "absent");
  EXPECT_EQ(report.claims[0].verdict, "not run");
  EXPECT_EQ(report.claims[0].measured, "kedge has no such layer");
  expect_failure(report.gates, 'B', "claim absent was not run: kedge has no such layer");
  expect_pass(gates(true, /*allow_not_run=*/true));
  // It cannot be said of a claim that kedge can measure.
  edit_json("records/slow.json", [](Json& record) {
    record["results"]["status"] = "not run", record["results"]["reason"] = "none";
    record["results"]["missing_subject"] = true, record["samples"] = Json::array();
  });
  fs::remove(bundle() / "csv/slow.csv");
  forge_the_rest();
  expect_failure(gates(false, true), 'B', "claim slow was not run: none");
}

TEST_F(VerifyTest, TroubleInATrackIsTheReasonOfItsClaims) {
  options_.allow_not_run = true;
  const VerifyReport report = verify_with(options_, {}, rows_with(run_into_trouble));
  EXPECT_FALSE(report.passed());
  expect_failure(report.gates, 'B', "claim fast was not run: the disk is full");
  EXPECT_NE(read_file(bundle() / "logs/R.log").find("claim fast: not run, the disk is full"), std::string::npos);
}

TEST_F(VerifyTest, ResumesWhatWasStopped) {
  EXPECT_THROW(verify_with(options_, {}, rows_with(run_one_job)), Error);
  EXPECT_FALSE(fs::exists(bundle() / "manifest.sha256"));
  const std::string first = read_file(bundle() / "records/fast.json");
  options_.resume = true;
  expect_pass(run().gates);
  EXPECT_EQ(first, read_file(bundle() / "records/fast.json"));
  expect_pass(gates(true));
  // Nor does a run lose its end that was stopped after its last record.
  edit_text("logs/R.log", "track R: finished\n", "");
  fs::remove(bundle() / "env.json");
  expect_pass(run().gates);
  // Not with other claims.
  write("claims/slow.toml", claim_text("R", "quantize", 1.5, 1.2));
  try {
    run();
    ADD_FAILURE() << "went on with another protocol";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
  }
}

TEST_F(VerifyTest, ComparesTwoBundles) {
  run();
  fs::rename(bundle(), root_ / "before");
  run();
  std::vector<VerifyChange> changes = compare_bundles(root_ / "before", bundle());
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_NEAR(changes[0].change, 0, 1e-12);
  EXPECT_LT(changes[0].low, 0);
  EXPECT_GT(changes[0].high, 0);
  EXPECT_FALSE(changes[0].moved());
  edit_json("records/fast.json", [](Json& record) {
    for (Json& sample : record["samples"])
      sample["values"]["subject"] = 1.1 * sample["values"]["subject"].get<double>();
  });
  changes = compare_bundles(root_ / "before", bundle());
  EXPECT_NEAR(changes[0].change, 0.1, 1e-9);
  EXPECT_TRUE(changes[0].moved());
  EXPECT_FALSE(changes[1].moved());
  EXPECT_NE(compare_text(changes).find("+10.0 % ["), std::string::npos) << compare_text(changes);
  EXPECT_TRUE(Json::parse(compare_json(changes))[0]["moved"].get<bool>());
}

TEST_F(VerifyTest, UnknownTracksAndSubjectsAreNamed) {
  write("claims/odd.toml", claim_text("R", "nothing", 1.5, 1.2));
  try {
    run();
    ADD_FAILURE() << "ran a claim of no subject";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("track R has no subject \"nothing\""), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(bundle()));
}

}  // namespace
}  // namespace kedge
