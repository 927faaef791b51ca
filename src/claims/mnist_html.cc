// The report as one HTML page.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/json.h"
#include "claims/mnist_summary.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/text.h"

namespace kedge {
namespace {

std::string cell(const Json& json, double factor, int decimals) {
  if (json.is_null()) return "";
  const std::string mean = fmt::format("{:.{}f}", factor * json.at("mean").get<double>(), decimals);
  if (json.at("low").is_null()) return mean;
  return fmt::format("{} [{:.{}f}, {:.{}f}]", mean, factor * json.at("low").get<double>(), decimals,
                     factor * json.at("high").get<double>(), decimals);
}

std::string latency_cell(const Json& row, const char* batch) {
  if (!row.contains("latency")) return "";
  const Json& l = row.at("latency").at(batch);
  return fmt::format("{:.1f} [p95 {:.1f}]", 1e6 * l.at("p50").at("mean").get<double>(),
                     1e6 * l.at("p95").at("mean").get<double>());
}

PlotPoint point(const Json& json, double factor, std::string tooltip) {
  const double mean = factor * json.at("mean").get<double>();
  if (json.at("low").is_null()) return {0, mean, mean, mean, std::move(tooltip)};
  return {0, mean, factor * json.at("low").get<double>(), factor * json.at("high").get<double>(), std::move(tooltip)};
}

HtmlTable rows_table(const Json& results) {
  HtmlTable table;
  table.caption = "Networks";
  table.header = {
      "network", "row of the report", "test accuracy %", "against fp32, points", "train accuracy %", "test loss",
      "KB",      "smaller",           "batch 1, µs",     "batch 64, µs",         "faster at 64"};
  table.text_columns = 2;
  for (const Json& row : results.at("rows")) {
    const bool plain = row.at("form") == Json("fp32");
    const bool timed = row.contains("latency");
    table.rows.push_back(
        {row.at("name").get<std::string>(), row.at("paper").get<std::string>(), cell(row.at("test_accuracy"), 100, 2),
         cell(row.at("difference"), 100, 3), cell(row.at("train_accuracy"), 100, 2), cell(row.at("test_loss"), 1, 4),
         fmt::format("{:.1f}", row.at("bytes").get<double>() / 1e3),
         plain ? "" : fmt::format("{:.2f}", row.at("smaller").get<double>()), latency_cell(row, "1"),
         latency_cell(row, "64"), plain || !timed ? "" : cell(row.at("latency").at("64").at("faster"), 1, 2)});
  }
  return table;
}

HtmlTable claims_table(const Json& results) {
  HtmlTable table;
  table.caption = "What the report said, measured";
  table.header = {"claim", "the report", "here", "verdict"};
  table.text_columns = 4;
  for (const Json& c : results.at("claims")) {
    table.rows.push_back({c.at("claim").get<std::string>(), c.at("paper").get<std::string>(),
                          c.at("measured").get<std::string>(), c.at("verdict").get<std::string>()});
  }
  return table;
}

std::string accuracy_plot(const Json& results) {
  BarChart chart;
  chart.label = "Change of test accuracy by quantization", chart.x_label = "row of the table";
  chart.y_label = "test error, %";
  PlotSeries series;
  int number = 0;
  for (const Json& row : results.at("rows")) {
    chart.categories.push_back(std::to_string(++number));
    Json error = row.at("test_accuracy");
    const double mean = 1 - error.at("mean").get<double>();
    if (!error.at("low").is_null()) {
      const double low = 1 - error.at("high").get<double>(), high = 1 - error.at("low").get<double>();
      error["low"] = low, error["high"] = high;
    }
    error["mean"] = mean;
    series.points.push_back(
        point(error, 100, fmt::format("{}\n{} % wrong", row.at("name").get<std::string>(), cell(error, 100, 2))));
  }
  chart.series.push_back(std::move(series));
  return svg_bars(chart);
}

std::string digits_map(const Json& shown) {
  HeatMap map;
  map.label = "Test images of each digit by expert", map.x_label = "digit", map.y_label = "expert";
  for (int d = 0; d < 10; ++d) map.columns.push_back(std::to_string(d));
  for (std::size_t e = 0; e < shown.at("counts").size(); ++e) {
    map.rows.push_back(std::to_string(e));
    for (std::size_t d = 0; d < 10; ++d) {
      const auto n = shown.at("counts").at(e).at(d).get<double>();
      map.values.push_back(n);
      map.tooltips.push_back(fmt::format("expert {}, digit {}\n{} images", e, d, n));
    }
  }
  map.scale_low = "0", map.scale_high = "most";
  return svg_heat_map(map);
}

/// Mistakes alone: the right answers would outshine them.
std::string confusion_map(const Json& counts) {
  HeatMap map;
  map.label = "Wrong answers", map.x_label = "answer", map.y_label = "digit";
  double most = 0;
  for (std::size_t a = 0; a < 10; ++a) {
    map.rows.push_back(std::to_string(a));
    map.columns.push_back(std::to_string(a));
    for (std::size_t b = 0; b < 10; ++b) {
      const auto n = counts.at(a).at(b).get<double>();
      map.values.push_back(a == b ? std::nan("") : n);
      map.tooltips.push_back(fmt::format("{} read as {}\n{} images", a, b, n));
      if (a != b) most = std::max(most, n);
    }
  }
  map.scale = most, map.scale_low = "0", map.scale_high = format_count(static_cast<std::int64_t>(most));
  return svg_heat_map(map);
}

std::string picture_of(const std::string& hex, std::size_t expert) {
  Picture picture;
  picture.label = fmt::format("Mean image of expert {}", expert);
  picture.width = picture.height = static_cast<int>(std::lround(std::sqrt(static_cast<double>(hex.size()) / 2)));
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    picture.values.push_back(std::stoi(hex.substr(i, 2), nullptr, 16) / 255.0);
  }
  return svg_picture(picture);
}

HtmlTable experts_table(const Json& results) {
  HtmlTable table;
  table.caption = "Routing";
  table.header = {"network",
                  "least used %",
                  "busiest %",
                  "load entropy",
                  "router entropy",
                  "over capacity, training %",
                  "over capacity, test %",
                  "I(expert; digit), nats",
                  "by chance",
                  "p at most"};
  for (const Json& row : results.at("experts")) {
    table.rows.push_back({mnist_label(row.at("variant").get<std::string>()), cell(row.at("least_load"), 100, 1),
                          cell(row.at("most_load"), 100, 1), cell(row.at("load_entropy"), 1, 3),
                          cell(row.at("router_entropy"), 1, 3), cell(row.at("over_capacity_training"), 100, 2),
                          cell(row.at("over_capacity_test"), 100, 2), cell(row.at("mutual_information"), 1, 3),
                          cell(row.at("null_mean"), 1, 4), fmt::format("{:.3f}", row.at("largest_p").get<double>())});
  }
  return table;
}

HtmlTable observers_table(const Json& results) {
  HtmlTable table;
  table.caption = "Observers of static scales";
  table.header = {"network", "observer", "test accuracy %", "against fp32, points"};
  table.text_columns = 2;
  for (const Json& row : results.at("observers")) {
    table.rows.push_back({mnist_label(row.at("variant").get<std::string>()), row.at("observer").get<std::string>(),
                          cell(row.at("test_accuracy"), 100, 2), cell(row.at("difference"), 100, 3)});
  }
  return table;
}

HtmlTable by_error_table(const Json& results) {
  HtmlTable table;
  table.caption = "Routing by reconstruction error against other networks";
  table.header = {"against", "test accuracy, points", "test loss", "time at batch 64, times"};
  for (const Json& row : results.at("by_error")) {
    table.rows.push_back({mnist_label(row.at("baseline").get<std::string>()), cell(row.at("test_accuracy"), 100, 3),
                          cell(row.at("test_loss"), 1, 4), cell(row.at("time"), 1, 2)});
  }
  return table;
}

const Json& row_named(const Json& results, const char* variant, const char* form) {
  for (const Json& row : results.at("rows")) {
    if (row.at("variant") == Json(variant) && row.at("form") == Json(form)) return row;
  }
  return results.at("rows").at(0);
}

std::string static_verdict(const Json& results) {
  for (const Json& claim : results.at("claims")) {
    if (claim.at("claim") == Json("Static quantization does not suit a MoE")) {
      return fmt::format("\"Static quantization does not suit a MoE\" is {}: {}.",
                         claim.at("verdict").get<std::string>(), claim.at("measured").get<std::string>());
    }
  }
  return {};
}

void add_experts(HtmlPage& page, const Json& results) {
  const Json& shown = results.at("shown");
  page.section(
      "Experts",
      fmt::format("What each expert of the MoE sees of the test images, seed {}, first choices; the tables are over "
                  "all seeds.",
                  shown.at("seed").dump()));
  for (std::size_t e = 0; e < shown.at("expert_images").size(); ++e) {
    page.plot(fmt::format("Expert {}", e),
              fmt::format("Mean of its images; {:.1f} % of all.", 100 * shown.at("load").at(e).get<double>()),
              picture_of(shown.at("expert_images").at(e).get<std::string>(), e), PlotWidth::third);
  }
  page.plot("Digits by expert", "Test images.", digits_map(shown));
  page.table(experts_table(results));
  page.table(by_error_table(results));
}

}  // namespace

std::string mnist_html(const Json& record) {
  const Json &results = record.at("results"), &config = record.at("config"), &provenance = record.at("provenance");
  HtmlPage page("kedge mnist report");
  page.lead(
      "kedge mnist report", static_verdict(results),
      fmt::format("{} seeds, {} epochs. Means with 95 % intervals over the seeds; differences are paired by seed.",
                  results.at("seeds").dump(), config.at("epochs").dump()));
  std::vector<KeyFigure> figures;
  for (const auto& [variant, label] : {std::pair{"ffn", "dense"}, std::pair{"moe", "MoE"}}) {
    const Json &plain = row_named(results, variant, "fp32"), &fixed = row_named(results, variant, "w8a8-static");
    figures.push_back({std::string(label) + ", fp32",
                       format_percent(plain.at("test_accuracy").at("mean").get<double>()), "test accuracy"});
    figures.push_back({std::string(label) + ", int8 static",
                       fmt::format("{:.2f} x smaller", fixed.at("smaller").get<double>()),
                       fmt::format("{:.2f} x as fast at batch 64",
                                   fixed.at("latency").at("64").at("faster").at("mean").get<double>())});
  }
  page.key_figures(figures);
  page.section(
      "The table",
      "Latency: one pass of the model alone on one thread, medians, all networks in turn. Sizes: model.safetensors, "
      "1 KB = 1000 bytes.");
  page.plot("Test error", "The rows of the table below, in order.", accuracy_plot(results), PlotWidth::full);
  page.table(rows_table(results));
  page.table(claims_table(results));
  page.table(observers_table(results));
  add_experts(page, results);
  page.section("Confusion", "Wrong answers to the test images, all seeds together.");
  page.plot("Dense, fp32", "", confusion_map(results.at("confusion").at("ffn")));
  page.plot("MoE, fp32", "", confusion_map(results.at("confusion").at("moe")));
  page.section("Provenance");
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto& [key, value] : provenance.items()) {
    if (value.is_string()) facts.emplace_back(key, value.get<std::string>());
    if (value.is_number()) facts.emplace_back(key, value.dump());
  }
  for (const Json& input : provenance.at("inputs")) {
    facts.emplace_back("SHA-256, " + input.at("role").get<std::string>(), input.at("sha256").get<std::string>());
  }
  page.facts(facts);
  return page.str();
}

}  // namespace kedge
