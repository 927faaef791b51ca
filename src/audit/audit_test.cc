#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "audit/language.h"
#include "record/out_folder.h"
#include "base/json.h"
#include "kedge/audit.h"
#include "kedge/error.h"

namespace kedge {
namespace {

DistributionDiff position(double kld, bool same_top, double p, double q) {
  return {kld, same_top, p, q, -std::log(p), -std::log(q)};
}

TEST(Language, HandComputed) {
  LanguageComparison language(3);
  // The last position of a sequence has no target: its p and q must not count.
  language.add_sequence(
      std::vector{position(0.1, true, 0.5, 0.25), position(0.3, false, 0.5, 0.5), position(0.2, true, 0.001, 0.9)});
  language.add_sequence(
      std::vector{position(0.4, true, 0.25, 0.25), position(0.0, true, 0.5, 0.75), position(0.5, false, 0.001, 0.9)});
  const AuditMetrics m = language.metrics();
  EXPECT_NEAR(metric(m, "kld").mean, 1.5 / 6, 1e-12);
  EXPECT_NEAR(metric(m, "kld_median").mean, 0.25, 1e-12);
  EXPECT_NEAR(metric(m, "kld_max").mean, 0.5, 1e-12);
  EXPECT_NEAR(metric(m, "same_top").mean, 4.0 / 6, 1e-12);
  EXPECT_NEAR(metric(m, "nll_original").mean, (3 * std::log(2) + std::log(4)) / 4, 1e-12);
  EXPECT_NEAR(metric(m, "perplexity_original").mean, std::exp(5 * std::log(2) / 4), 1e-12);
  EXPECT_NEAR(metric(m, "ln_ratio").mean, (std::log(2) - std::log(1.5)) / 4, 1e-12);
  EXPECT_NEAR(metric(m, "delta_p").mean, 0, 1e-12);
  EXPECT_NEAR(metric(m, "delta_p_rms").mean, std::sqrt(2 * 0.0625 / 4), 1e-12);
  EXPECT_EQ(metric(m, "kld").n, 2);
  EXPECT_GT(metric(m, "kld").standard_error, 0);
  const auto bins = language.kld_by_position();
  ASSERT_EQ(bins.size(), 3u);
  EXPECT_NEAR(bins[0].kld.mean, 0.25, 1e-12);
  EXPECT_NEAR(bins[2].kld.mean, 0.35, 1e-12);
  AuditSample sample;
  language.describe(1, sample);
  EXPECT_NEAR(sample.kld, 0.3, 1e-12);
  EXPECT_NEAR(metric(language.metrics({false, true}), "kld").mean, 0.3, 1e-12);
}

TEST(Language, IntervalsContainAndShrink) {
  const auto width = [](int sequences) {
    LanguageComparison language(16);
    std::uint64_t state = 1;
    for (int s = 0; s < sequences; ++s) {
      std::vector<DistributionDiff> row;
      for (int i = 0; i < 16; ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        row.push_back(position(static_cast<double>(state >> 40) / (1 << 24), true, 0.5, 0.5));
      }
      language.add_sequence(row);
    }
    const AuditMetrics m = language.metrics();
    for (const char* name : {"kld", "kld_median", "kld_p90", "kld_p99"}) {
      const AuditValue& v = metric(m, name);
      EXPECT_LE(v.low, v.mean) << name;
      EXPECT_GE(v.high, v.mean) << name;
      EXPECT_GT(v.standard_error, 0) << name;
    }
    // Uniform on [0, 1].
    EXPECT_NEAR(metric(m, "kld_median").mean, 0.5, 0.15);
    EXPECT_NEAR(metric(m, "kld_p90").mean, 0.9, 0.05);
    return metric(m, "kld_median").high - metric(m, "kld_median").low;
  };
  EXPECT_LT(width(64), width(8));
}

TEST(Language, ANaNIsNotSorted) {
  LanguageComparison language(2);
  language.add_sequence(std::vector{position(std::nan(""), true, 0.5, 0.5), position(1, true, 0.5, 0.5)});
  EXPECT_TRUE(std::isnan(metric(language.metrics(), "kld_median").mean));
  EXPECT_TRUE(std::isnan(metric(language.metrics(), "kld_max").mean));
}

AuditReport small_report() {
  AuditReport report;
  report.original.path = "a<b>", report.quantized.path = "q\xff";
  report.texts = {"text.txt"};
  report.seqlen = 4, report.sequences = 2, report.tokens = 8;
  report.provenance_json = report.config_json = "{}";
  AuditComparison c;
  c.name = c.mode = "free", c.activations = "fp32";
  LanguageComparison language(4);
  for (int s = 0; s < 2; ++s) {
    language.add_sequence(std::vector(4, position(0.01 * (s + 1), true, 0.5, 0.25)));
  }
  AuditLayer layer;
  layer.layer = 3, layer.experts = 2, layer.top_k = 1;
  for (const char* name :
       {"jaccard", "exact_set", "any_changed", "selections_changed", "top1", "order_inversions", "weighted_agreement",
        "margin", "margin_at_flip", "js_divergence", "gini_original", "gini_quantized"}) {
    layer.metrics.emplace_back(name, AuditValue{0.25, 0.2, 0.3, 0.025, 2});
  }
  layer.metrics[8].second = {std::nan(""), std::nan(""), std::nan(""), std::nan(""), 0};
  layer.tokens_per_expert_original = {5, 3}, layer.tokens_per_expert_quantized = {8, 0};
  layer.dead_quantized = 1;
  c.mean = layer.metrics;
  c.layers.push_back(layer);
  for (const auto& m : language.metrics()) c.mean.push_back(m);
  c.kld_by_position = language.kld_by_position();
  c.flips_by_margin = {{0.1, 0.2, 100, 10, {0.1, 0.05, 0.15, 0.02, 2}}};
  c.samples.resize(2);
  report.comparisons.push_back(c);
  return report;
}

TEST(Report, JsonHasTheDocumentedKeys) {
  const Json json = parse_json(audit_json(small_report()), "report");
  EXPECT_EQ(json.at("schema"), "kedge.audit/1");
  for (const char* key : {"provenance", "config", "results", "samples"}) EXPECT_TRUE(json.contains(key)) << key;
  const Json& results = json.at("results");
  for (const char* key : {"jaccard",
                          "exact_set",
                          "any_changed",
                          "top1",
                          "order_inversions",
                          "weighted_agreement",
                          "margin",
                          "margin_at_flip",
                          "js_divergence",
                          "gini_original",
                          "gini_quantized",
                          "kld",
                          "kld_median",
                          "kld_p90",
                          "kld_p99",
                          "kld_max",
                          "same_top",
                          "delta_p_rms",
                          "ln_ratio",
                          "perplexity_original",
                          "perplexity_quantized",
                          "unchanged_everywhere"}) {
    ASSERT_TRUE(results.at("mean").contains(key)) << key;
    for (const char* part : {"mean", "low", "high", "standard_error", "n"})
      EXPECT_TRUE(results["mean"][key].contains(part)) << key;
  }
  EXPECT_EQ(results.at("layers").at(0).at("jaccard").at("mean"), 0.25);
  EXPECT_TRUE(results["layers"][0]["margin_at_flip"]["mean"].is_null());
  EXPECT_EQ(results["layers"][0]["dead_quantized"], 1);
  EXPECT_EQ(json.at("samples").size(), 2u);
}

TEST(Report, PageAndTableHoldWhatIsThere) {
  const AuditReport report = small_report();
  const std::string html = audit_html(report);
  EXPECT_NE(html.find("a&lt;b&gt;"), std::string::npos);
  EXPECT_EQ(html.find("a<b>"), std::string::npos);
  EXPECT_EQ(html.find("\"nan"), std::string::npos);
  EXPECT_EQ(html.find(">nan"), std::string::npos);
  EXPECT_NE(html.find("25.0 % of token-layer selections changed"), std::string::npos);
  std::size_t plots = 0;
  for (std::size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) ++plots;
  EXPECT_EQ(plots, 7u);
  const std::string table = audit_table(report);
  EXPECT_NE(table.find("0.2500 ± 0.0250"), std::string::npos) << table;
  EXPECT_NE(table.find("0 → 1"), std::string::npos);
  EXPECT_NE(table.find("n/a"), std::string::npos);
}

TEST(Report, VerdictOfNoChange) {
  AuditReport report = small_report();
  for (auto& [name, value] : report.comparisons[0].mean) {
    if (name == "any_changed" || name.starts_with("kld")) value = {0, 0, 0, 0, 2};
  }
  EXPECT_EQ(audit_verdict(report), "No token-layer selection changed; next-token predictions are identical.");
}

TEST(Options, AreChecked) {
  EXPECT_EQ(parse_audit_mode("both"), AuditMode::both);
  EXPECT_THROW(parse_audit_mode("Free"), Error);
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "kedge-audit-out";
  std::filesystem::remove_all(folder);
  require_free(folder, {"report.json"}, false);
  { const OutFolder empty(folder); }
  EXPECT_FALSE(std::filesystem::exists(folder));
  {
    const OutFolder kept(folder);
    std::ofstream(folder / "report.json") << "{}";
  }
  require_free(folder, {"report.json"}, true);
  try {
    require_free(folder, {"report.json"}, false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::exists);
  }
  EXPECT_THROW(require_free(folder / "report.json", {"x"}, true), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace kedge
