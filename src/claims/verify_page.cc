// The page of an evidence bundle: gates, verdicts, and for each claim its samples beside its threshold.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "claims/verify_summary.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/text.h"

namespace kedge {
namespace {

// More points than this say no more than their histogram.
constexpr std::size_t kMostPoints = 200;
constexpr std::size_t kBins = 10;

PlotSeries level(const std::string& name, double value, double to, int color) {
  return {name, {{0, value, value, value, name}, {to, value, value, value, name}}, color, true, false};
}

// How right answers are by how sure the model is, for figures of all records together.
std::string reliability_plot(const std::vector<ClaimSample>& samples) {
  std::vector<double> sum(kBins), right(kBins), count(kBins);
  for (const ClaimSample& sample : samples) {
    const double confidence = sample.values.at("confidence");
    const auto bin = std::min(kBins - 1, static_cast<std::size_t>(std::max(0.0, confidence) * kBins));
    sum[bin] += confidence, right[bin] += sample.values.at("correct"), count[bin] += 1;
  }
  Plot plot;
  plot.label = "Share of right answers by confidence", plot.x_label = "confidence", plot.y_label = "right";
  plot.y_from_zero = plot.y_percent = true;
  PlotSeries bins{"answers in ten bins", {}, 0, true, false};
  for (std::size_t b = 0; b < kBins; ++b) {
    if (count[b] == 0) continue;
    const double x = sum[b] / count[b], y = right[b] / count[b];
    bins.points.push_back({x, y, y, y, fmt::format("{} answers", count[b])});
  }
  plot.series.push_back(std::move(bins));
  plot.series.push_back({"as sure as right", {{0, 0, 0, 0, ""}, {1, 1, 1, 1, ""}}, 1, true, false});
  return svg_plot(plot);
}

std::string samples_plot(const Claim& claim, const std::vector<ClaimSample>& samples, const Estimate& e) {
  Plot plot;
  plot.label = "Samples of " + claim.name, plot.x_label = "sample", plot.y_label = claim.metric;
  plot.integer_x = true;
  plot.y_percent = claim.effect == Effect::relative_change;
  const std::size_t step = samples.size() / kMostPoints + 1;
  PlotSeries points{step == 1 ? "samples" : fmt::format("every {}th sample", step), {}, 0, false, false};
  for (std::size_t i = 0; i < samples.size(); i += step) {
    const double effect = sample_effect(claim, samples[i]);
    const std::string tooltip = samples[i].label + "\n" + effect_text(claim, effect);
    points.points.push_back({static_cast<double>(i + 1), effect, effect, effect, tooltip});
  }
  const double to = static_cast<double>(samples.size()) + 1;
  plot.series.push_back(std::move(points));
  plot.series.push_back(level("threshold", claim.threshold, to, 1));
  if (claim.refuted_at != claim.threshold) plot.series.push_back(level("refuted at", claim.refuted_at, to, 2));
  if (claim.test != ClaimTest::every) {
    const bool bounded = std::isfinite(e.low) && std::isfinite(e.high);
    plot.series.push_back(
        {"mean, with its interval",
         {{to / 2, e.effect, bounded ? e.low : e.effect, bounded ? e.high : e.effect, measured_text(claim, e)}},
         3,
         false,
         false});
  }
  return svg_plot(plot);
}

void add_claim(HtmlPage& page, const Claim& claim, const ClaimRecord& record, const Estimate& e,
               const Judgement& judgement) {
  const std::string caption =
      fmt::format("{}: {} measured, {} required. {}, {} clusters.", verdict_name(judgement.verdict),
                  measured_text(claim, e), required_text(claim), test_name(claim.test), e.clusters);
  page.plot(
      claim.statement + " (" + claim.name + ")", caption,
      is_confidence_metric(claim.metric) ? reliability_plot(record.samples) : samples_plot(claim, record.samples, e));
}

HtmlTable gates_table(const std::vector<VerifyGate>& gates) {
  HtmlTable table;
  table.caption = "Gates";
  table.header = {"", "gate", "outcome", "checks"};
  table.text_columns = 4;
  for (const VerifyGate& gate : gates) {
    std::string outcome = gate.passed() ? "passed" : "failed: " + gate.failures.front();
    if (gate.failures.size() > 1) outcome += fmt::format(" (and {} more)", gate.failures.size() - 1);
    table.rows.push_back({std::string(1, gate.letter), gate.name, outcome, gate.checks});
  }
  return table;
}

HtmlTable verdicts_table(const std::vector<VerifyClaim>& rows) {
  HtmlTable table;
  table.caption = "Verdicts";
  table.header = {"verdict", "claim", "track", "measured", "required", "n", "of", "statement"};
  table.text_columns = 8;
  for (const VerifyClaim& row : rows) {
    table.rows.push_back({row.verdict, row.name, row.track, row.measured, row.required,
                          row.n == 0 ? "" : format_count(row.n), row.claimed_by, row.statement});
  }
  return table;
}

std::string env_text(const Json& env, const char* key) {
  if (!env.contains(key) || env[key].is_null()) return "not known";
  return env[key].is_string() ? env[key].get<std::string>() : env[key].dump();
}

}  // namespace

std::string bundle_page(const Bundle& bundle, const BundleVerdicts& verdicts, const std::vector<VerifyGate>& gates) {
  const std::vector<VerifyClaim> rows = claim_rows(bundle, verdicts);
  const auto count = [&](const char* verdict) {
    return std::to_string(std::count_if(rows.begin(), rows.end(), [&](const auto& r) { return r.verdict == verdict; }));
  };
  const auto failed = std::count_if(gates.begin(), gates.end(), [](const VerifyGate& g) { return !g.passed(); });
  std::string outcome = failed == 0 ? "All gates pass" : fmt::format("{} of {} gates fail", failed, gates.size());
  if (count("not run") != "0") outcome += fmt::format("; {} claims were not run", count("not run"));
  const Protocol& protocol = bundle.protocol();
  HtmlPage page("kedge verify");
  page.lead("kedge verify, profile " + protocol.profile, outcome + ".",
            fmt::format("{} claims, registered at {} before they were measured.", rows.size(), protocol.started));
  page.key_figures({{"upheld", count("upheld"), ""},
                    {"refuted", count("refuted"), ""},
                    {"inconclusive", count("inconclusive"), ""},
                    {"not run", count("not run"), ""}});
  page.section("Gates");
  page.table(gates_table(gates));
  page.section("Verdicts");
  page.table(verdicts_table(rows));
  page.section("Measurements", "Samples, the threshold that was registered, and the mean with its interval.");
  for (const std::size_t i : reading_order(bundle, verdicts)) {
    const Claim& claim = protocol.claims[i];
    if (!verdicts.estimates[i]) continue;
    add_claim(page, claim, *bundle.record_of(claim), *verdicts.estimates[i], verdicts.judgements[i]);
  }
  const Json env = bundle.env.empty() ? Json::object() : Json::parse(bundle.env);
  page.section("Provenance");
  page.facts({{"run", protocol.run_id},
              {"protocol", protocol.sha256()},
              {"kedge", protocol.kedge_version + ", git " + protocol.git_hash + ", " + env_text(env, "build_type")},
              {"machine", env_text(env, "cpu") + ", " + env_text(env, "isa") + ", threads " + env_text(env, "threads")},
              {"started", protocol.started},
              {"finished", env_text(env, "finished")}});
  return page.str();
}

}  // namespace kedge
