#include "claims/ablation_summary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "base/json.h"

namespace kedge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Ratios e^-0.1, e^-0.2, e^-0.3: mean log -0.2, standard deviation 0.1, t(0.975, 2) = 4.302653.
TEST(PairedChange, ByHand) {
  const std::vector<double> base{2, 3, 5};
  const std::vector<double> x{2 * std::exp(-0.1), 3 * std::exp(-0.2), 5 * std::exp(-0.3)};
  const AblationValue v = paired_relative_change(x, base);
  EXPECT_EQ(v.n, 3);
  EXPECT_NEAR(v.mean, std::exp(-0.2) - 1, 1e-12);
  EXPECT_NEAR(v.low, std::exp(-0.2 - 4.302653 * 0.1 / std::sqrt(3.0)) - 1, 1e-7);
  EXPECT_NEAR(v.high, std::exp(-0.2 + 4.302653 * 0.1 / std::sqrt(3.0)) - 1, 1e-7);
}

TEST(PairedChange, WithoutWhatItNeeds) {
  const AblationValue one = paired_relative_change(std::vector<double>{1}, std::vector<double>{2});
  EXPECT_DOUBLE_EQ(one.mean, -0.5);
  EXPECT_TRUE(std::isnan(one.low) && std::isnan(one.high));
  EXPECT_TRUE(std::isnan(paired_relative_change(std::vector<double>{1, 0}, std::vector<double>{2, 2}).mean));
  EXPECT_TRUE(std::isnan(paired_relative_change({}, {}).mean));
}

AblationRun whole(std::size_t method, std::uint64_t seed, bool seedless, double changed, double kld) {
  AblationRun run;
  run.method = method, run.seed = seed, run.seedless = seedless;
  run.one_minus_jaccard = changed, run.kld = kld;
  run.exact_set = 0.9, run.ln_ratio = 0.01, run.seconds = seed == 2 ? kNaN : 4, run.bits_per_weight = 4.125;
  run.changed_after = kNaN;
  run.layers = {changed / 2, changed * 3 / 2};
  run.record = "r.json";
  return run;
}

AblationRun layer(std::size_t method, int at, std::uint64_t seed, double after, double kld) {
  AblationRun run = whole(method, seed, false, after, kld);
  run.layer = at, run.changed_after = after;
  return run;
}

AblationReport small_report() {
  AblationReport report;
  report.models = {{"models/<m>", "00", "qwen3_moe", {0, 1}}};
  report.schemes = {"w4a16-g128"};
  report.methods = {"plain", "b|ase", "both"};
  report.baseline = 1;
  report.seeds = {1, 2};
  report.runs = {whole(0, 0, true, 0.04, 0.02), whole(1, 1, false, 0.02, 0.01), whole(1, 2, false, 0.04, 0.02),
                 whole(2, 1, false, 0.01, 0.01), whole(2, 2, false, 0.02, 0.02)};
  report.provenance_json = R"({"kedge_version": "0", "git_hash": "g", "date": "d", "inputs": []})";
  report.config_json =
      R"({"recipe": "r.toml", "seeds": [1, 2], "methods": [{"name": "plain", "settings": {"method": "rtn"},
          "calibration": {"files": [], "field": "text", "nsamples": 8, "seqlen": 0}}]})";
  return report;
}

TEST(AblationSummary, PairsBySeed) {
  AblationReport report = small_report();
  summarize_ablation(report);
  ASSERT_EQ(report.tables.size(), 1u);
  const std::vector<AblationMethod>& methods = report.tables[0].methods;
  ASSERT_EQ(methods.size(), 3u);
  EXPECT_TRUE(methods[1].baseline);

  EXPECT_TRUE(methods[0].seedless);
  EXPECT_EQ(figure(methods[0], "one_minus_jaccard").n, 1);
  EXPECT_TRUE(std::isnan(figure(methods[0], "one_minus_jaccard").low));
  // Ratios 2 and 1 to the two seeds of the baseline.
  EXPECT_EQ(methods[0].changed_ratio.n, 2);
  EXPECT_NEAR(methods[0].changed_ratio.mean, std::sqrt(2.0) - 1, 1e-12);

  EXPECT_NEAR(figure(methods[1], "one_minus_jaccard").mean, 0.03, 1e-12);
  // Half the difference is the standard error of two values; t(0.975, 1) = 12.7062.
  EXPECT_NEAR(figure(methods[1], "one_minus_jaccard").high, 0.03 + 12.7062 * 0.01, 1e-6);
  EXPECT_EQ(methods[1].changed_ratio.mean, 0);
  EXPECT_NEAR(methods[1].layers[1].mean, 0.045, 1e-12);
  // A resumed run's time is not known.
  EXPECT_EQ(figure(methods[1], "seconds").n, 1);
  EXPECT_EQ(figure(methods[1], "seconds").mean, 4);

  // Always half the baseline: an interval without width, which the means alone would not show.
  EXPECT_NEAR(methods[2].changed_ratio.mean, -0.5, 1e-12);
  EXPECT_NEAR(methods[2].changed_ratio.high - methods[2].changed_ratio.low, 0, 1e-9);
  EXPECT_NEAR(methods[2].kld_ratio.mean, 0, 1e-12);
}

TEST(AblationSummary, MechanismCorrelates) {
  AblationReport report = small_report();
  report.runs.clear();
  // KLD = 2 x changed^1 within every layer, but layer 1 has ten times the divergence.
  for (std::size_t method = 0; method < 3; ++method) {
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      const double changed = 0.01 * static_cast<double>(method + 1) + 0.001 * static_cast<double>(seed);
      report.runs.push_back(layer(method, 0, seed, changed, 2 * changed));
      report.runs.push_back(layer(method, 1, seed, changed, 20 * changed));
      report.runs.push_back(layer(method, 2, seed, kNaN, changed));  // nothing after it
    }
  }
  summarize_ablation(report);
  EXPECT_TRUE(report.tables.empty());
  ASSERT_EQ(report.mechanisms.size(), 1u);
  const AblationMechanism& m = report.mechanisms[0];
  EXPECT_EQ(m.points, 12);
  EXPECT_EQ(m.cells, 6);
  ASSERT_EQ(m.correlations.size(), 4u);
  EXPECT_EQ(m.correlations[0].name, "pearson");
  EXPECT_GT(m.correlations[0].value, 0);
  EXPECT_LT(m.correlations[0].value, 0.6);
  EXPECT_EQ(m.correlations[3].name, "pearson_log_within_layers");
  EXPECT_NEAR(m.correlations[3].value, 1, 1e-12);
  EXPECT_NEAR(m.correlations[3].low, 1, 1e-9);
}

TEST(AblationReports, SayWhatTheRunsSay) {
  AblationReport report = small_report();
  report.runs.push_back(layer(0, 0, 1, 0.01, 0.02));
  report.runs.push_back(layer(1, 0, 1, 0.02, 0.03));
  report.runs.push_back(layer(2, 0, 1, 0.03, 0.05));
  summarize_ablation(report);

  const Json json = parse_json(ablation_json(report), "report");
  EXPECT_EQ(json["schema"], "kedge.ablation/1");
  EXPECT_EQ(json["samples"].size(), 8u);
  EXPECT_TRUE(json["samples"][0]["seed"].is_null());
  EXPECT_EQ(json["samples"][1]["seed"], 1);
  EXPECT_EQ(json["samples"][7]["layer"], 0);
  EXPECT_NEAR(json["results"]["tables"][0]["methods"][2]["one_minus_jaccard_change"]["mean"].get<double>(), -0.5, 1e-9);
  EXPECT_NEAR(json["results"]["mechanism"][0]["spearman"]["value"].get<double>(), 1, 1e-12);

  const std::string table = ablation_table(report), markdown = ablation_markdown(report);
  for (const std::string& text : {table, markdown}) {
    EXPECT_NE(text.find("−50.0 %"), std::string::npos) << text;
    EXPECT_NE(text.find("4.000 %"), std::string::npos) << text;
  }
  EXPECT_NE(markdown.find("b\\|ase"), std::string::npos);
  // Every row of a Markdown table has the columns of its head.
  std::istringstream lines(markdown);
  std::size_t columns = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("|")) {
      columns = 0;
      continue;
    }
    const std::string plain = std::regex_replace(line, std::regex(R"(\\\|)"), "");
    const auto bars = static_cast<std::size_t>(std::count(plain.begin(), plain.end(), '|'));
    if (columns == 0) columns = bars;
    EXPECT_EQ(bars, columns) << line;
  }
}

TEST(AblationReports, HtmlIsSelfContained) {
  AblationReport report = small_report();
  for (int i = 0; i < 3; ++i)
    report.runs.push_back(layer(static_cast<std::size_t>(i), 0, 1, 0.01 * (i + 1), 0.02 * (i + 1)));
  summarize_ablation(report);
  const std::string html = ablation_html(report);
  // The page's own icon is an empty one, so that a browser asks for none.
  const std::string rest = std::regex_replace(html, std::regex(R"(http://www\.w3\.org/2000/svg|href="data:,")"), "");
  const std::regex reference(R"re((src|href|action|data)\s*=|@import|url\()re", std::regex::icase);
  std::smatch match;
  EXPECT_FALSE(std::regex_search(rest, match, reference)) << match.str();
  EXPECT_EQ(rest.find("://"), std::string::npos);
  EXPECT_EQ(html.find("models/<m>"), std::string::npos);
  EXPECT_NE(html.find("models/&lt;m&gt;"), std::string::npos);
  std::size_t plots = 0;
  for (std::size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) ++plots;
  EXPECT_EQ(plots, 3u);
  EXPECT_NE(html.find("prefers-color-scheme"), std::string::npos);
  const std::regex not_a_number(R"(\b-?(nan|inf)\b)");
  EXPECT_FALSE(std::regex_search(html, match, not_a_number)) << match.prefix().str().substr(match.position() - 80);
}

}  // namespace
}  // namespace kedge
