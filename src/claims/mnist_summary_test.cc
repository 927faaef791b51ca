// The MNIST report from made-up records: means, paired differences and verdicts.
#include "claims/mnist_summary.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/json.h"
#include "claims/mnist_runs.h"

namespace kedge {
namespace {

struct Effects {
  double static_moe = 0;    ///< accuracy of the MoE with static int8 against fp32
  double int8_speed = 2;    ///< of int8 over fp32
  double moe_loss = -0.01;  ///< of the MoE against the dense network
  double p = 0.001;         ///< of the permutation test
  double unbalanced = 0.2;  ///< more for the busiest expert without balance loss
};

constexpr double kByErrorGain = 0.003;

double accuracy_of(std::uint64_t seed) { return 0.985 + 0.0005 * static_cast<double>(seed); }

Json run_of(const MnistVariant& variant, std::uint64_t seed, const Effects& effects) {
  const bool moe = variant.routes();
  Json forms = Json::array();
  for (const MnistForm& form : mnist_forms(variant)) {
    const bool fixed = form.scheme == "w8a8-static";
    Json line = {{"scheme", form.scheme},
                 {"observer", form.observer.empty() ? Json() : Json(form.observer)},
                 {"bytes", form.scheme == "fp32"        ? 4000
                           : form.scheme == "w4a16-g32" ? 600
                                                        : 1000},
                 {"test_accuracy", accuracy_of(seed) + (variant.by_error() ? kByErrorGain : 0) +
                                       (fixed && moe ? effects.static_moe + 1e-5 * static_cast<double>(seed) : 0)},
                 {"train_accuracy", 0.999},
                 {"test_loss", 0.05 + (moe ? effects.moe_loss + 1e-4 * static_cast<double>(seed) : 0)}};
    if (moe) line["changed_selections"] = 0.01;
    forms.push_back(std::move(line));
  }
  Json run = {{"variant", variant.name},
              {"seed", seed},
              {"parameters", 730894},
              {"active_parameters", 336142},
              {"training",
               {{"loss", 0.01}, {"seconds", 1.0}, {"expert_load", {0.25, 0.25, 0.25, 0.25}}, {"over_capacity", 0.01}}},
              {"forms", std::move(forms)},
              {"confusion", std::vector<std::vector<int>>(10, std::vector<int>(10, 1))}};
  if (!moe) return run;
  const double busy = 0.25 + (variant.balance ? 0.03 : 0.03 + effects.unbalanced) + 1e-3 * static_cast<double>(seed);
  run["routing"] = {
      {"counts", std::vector<std::vector<int>>(4, std::vector<int>(10, 25))},
      {"load", {busy, (1 - busy) / 3, (1 - busy) / 3, (1 - busy) / 3}},
      {"load_entropy", 0.99},
      {"router_entropy", 0.5},
      {"over_capacity", 0.02},
      {"mutual_information",
       {{"nats", 0.8}, {"null_mean", 0.001}, {"null_high", 0.002}, {"p", effects.p}, {"permutations", 999}}},
      {"expert_images", Json::array({"00ff8040", "00000000", "ffffffff", "10203040"})}};
  return run;
}

Json latency_of(std::uint64_t seed, const Effects& effects) {
  Json forms = Json::array();
  for (const MnistVariant& variant : mnist_variants()) {
    if (!variant.balance) continue;
    for (const MnistForm& form : mnist_forms(variant)) {
      if (form.key() != form.scheme) continue;
      for (const int batch : {1, 64}) {
        const double slow = 1e-4 * batch * (1 + 0.01 * static_cast<double>(seed)) * static_cast<double>(variant.top_k);
        const bool int8 = form.scheme.starts_with("w8a8");
        forms.push_back({{"variant", variant.name},
                         {"scheme", form.scheme},
                         {"batch", batch},
                         {"p50", int8 ? slow / effects.int8_speed * (1 + 0.001 * static_cast<double>(seed)) : slow},
                         {"p95", 2 * slow}});
      }
    }
  }
  return {{"seed", seed}, {"rounds", 3}, {"forms", std::move(forms)}};
}

Json summary_of(const Effects& effects, std::uint64_t seeds = 4) {
  std::vector<Json> runs, latencies;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    for (const MnistVariant& variant : mnist_variants()) runs.push_back(run_of(variant, seed, effects));
    latencies.push_back(latency_of(seed, effects));
  }
  return summarize_mnist(runs, latencies);
}

const Json& row_of(const Json& summary, const std::string& name) {
  for (const Json& row : summary.at("rows")) {
    if (row.at("name") == Json(name)) return row;
  }
  ADD_FAILURE() << "no row " << name;
  return summary;
}

std::string verdict_of(const Json& summary, const std::string& claim) {
  for (const Json& row : summary.at("claims")) {
    if (row.at("claim") == Json(claim)) return row.at("verdict").get<std::string>();
  }
  ADD_FAILURE() << "no claim " << claim;
  return {};
}

TEST(MnistSummary, MeansAndPairedDifferences) {
  const Json summary = summary_of({.static_moe = -0.002});
  const Json& plain = row_of(summary, "MoE, fp32");
  EXPECT_NEAR(plain["test_accuracy"]["mean"].get<double>(), 0.985 + 0.0005 * 2.5, 1e-12);
  // Seeds differ by far more than the difference does: paired, its interval is narrow.
  const Json& fixed = row_of(summary, "MoE, int8 static");
  EXPECT_NEAR(fixed["difference"]["mean"].get<double>(), -0.002 + 2.5e-5, 1e-12);
  EXPECT_LT(fixed["difference"]["high"].get<double>() - fixed["difference"]["low"].get<double>(), 1e-4);
  EXPECT_GT(plain["test_accuracy"]["high"].get<double>() - plain["test_accuracy"]["low"].get<double>(), 1e-3);
  EXPECT_DOUBLE_EQ(fixed["smaller"].get<double>(), 4);
  EXPECT_NEAR(fixed["latency"]["64"]["faster"]["mean"].get<double>(), 2, 0.01);
  EXPECT_TRUE(plain["difference"].is_null());
  EXPECT_EQ(summary["observers"].size(), 8u);
  EXPECT_EQ(summary["confusion"]["moe"][3][4], 4);
  const Json& by_error = summary["by_error"];
  ASSERT_EQ(by_error.size(), 3u);
  EXPECT_EQ(by_error[0]["baseline"], "moe-two");
  EXPECT_NEAR(by_error[0]["test_accuracy"]["mean"].get<double>(), kByErrorGain, 1e-12);
  EXPECT_NEAR(by_error[2]["test_loss"]["mean"].get<double>(), -0.01 + 2.5e-4, 1e-12);
  EXPECT_NEAR(by_error[1]["time"]["mean"].get<double>(), 2, 1e-9);
}

TEST(MnistSummary, VerdictsFollowTheIntervals) {
  const std::string claim = "Static quantization does not suit a MoE";
  EXPECT_EQ(verdict_of(summary_of({}), claim), "refuted");
  EXPECT_EQ(verdict_of(summary_of({.static_moe = -0.005}), claim), "upheld");
  EXPECT_EQ(verdict_of(summary_of({.static_moe = -0.001 - 2.5e-5}), claim), "inconclusive");
  EXPECT_EQ(verdict_of(summary_of({}, 1), claim), "inconclusive");
  EXPECT_EQ(verdict_of(summary_of({}), "Int8 makes the MoE no faster"), "refuted");
  EXPECT_EQ(verdict_of(summary_of({.int8_speed = 0.8}), "Int8 makes the MoE no faster"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({}), "Int8 makes the dense network faster"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({}), "The MoE has the lower loss"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({.moe_loss = 0.01}), "The MoE has the lower loss"), "refuted");
  EXPECT_EQ(verdict_of(summary_of({}), "A balance loss evens the experts' use"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({.unbalanced = -0.02}), "A balance loss evens the experts' use"), "refuted");
  EXPECT_EQ(verdict_of(summary_of({}), "Experts specialise"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({.p = 0.3}), "Experts specialise"), "inconclusive");
  EXPECT_EQ(verdict_of(summary_of({}), "Int8 takes a quarter of the size"), "upheld");
  EXPECT_EQ(verdict_of(summary_of({}), "One active expert costs less than four"), "upheld");
}

TEST(MnistSummary, FormsShowEveryRow) {
  const Json provenance = {
      {"git_hash", "0123456789abcdef"}, {"build_type", "Dev"},    {"cpu", "a cpu"}, {"isa", "scalar"},
      {"date", "2026-01-31T00:00:00Z"}, {"inputs", Json::array()}};
  for (const std::uint64_t seeds : {1, 3}) {
    const Json record = {{"provenance", provenance},
                         {"config", {{"epochs", 2}, {"calibration_images", 1024}, {"latency_rounds", 3}}},
                         {"results", summary_of({}, seeds)}};
    for (const std::string& text : {mnist_table(record), mnist_markdown(record), mnist_html(record)}) {
      for (const Json& row : record["results"]["rows"]) {
        EXPECT_NE(text.find(row["name"].get<std::string>()), std::string::npos) << row["name"];
      }
      for (const char* nan : {" nan", ">nan", "[nan"}) EXPECT_EQ(text.find(nan), std::string::npos);
      EXPECT_NE(text.find(seeds == 1 ? "inconclusive" : "refuted"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace kedge
