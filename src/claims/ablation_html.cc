// The results of an ablation as one HTML page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "claims/ablation_text.h"
#include "kedge/ablate.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/text.h"

namespace kedge {
namespace {

namespace text = ablation_text;

constexpr std::size_t kColors = 6;  // of the page's style

PlotPoint point(double x, const AblationValue& v, std::string tooltip) {
  const bool bounded = !std::isnan(v.low) && !std::isnan(v.high);
  return {x, v.mean, bounded ? std::max(0.0, v.low) : v.mean, bounded ? v.high : v.mean, std::move(tooltip)};
}

// Labels of methods are long and there may be many: numbers stand for them, the table beside says which.
std::string method_plot(const AblationTable& table) {
  BarChart chart;
  chart.label = "Selections changed by method", chart.x_label = "method (number in the table)";
  chart.y_label = "1 − Jaccard", chart.y_percent = true;
  PlotSeries series;
  for (std::size_t k = 0; k < table.methods.size(); ++k) {
    const AblationMethod& method = table.methods[k];
    chart.categories.push_back(std::to_string(k + 1));
    const AblationValue& changed = figure(method, "one_minus_jaccard");
    series.points.push_back(
        point(0, changed, fmt::format("{} {}\n{} changed", k + 1, method.name, text::percent(changed))));
  }
  chart.series.push_back(std::move(series));
  return svg_bars(chart);
}

std::string layer_lines(const AblationTable& table, const std::vector<int>& layers) {
  Plot plot;
  plot.label = "Selections changed by layer", plot.x_label = "layer", plot.y_label = "1 − Jaccard";
  plot.integer_x = plot.y_from_zero = plot.y_percent = true;
  for (std::size_t k = 0; k < table.methods.size(); ++k) {
    PlotSeries series;
    series.name = table.methods[k].name;
    series.color = static_cast<int>(k % kColors);
    for (std::size_t l = 0; l < table.methods[k].layers.size(); ++l) {
      const AblationValue& v = table.methods[k].layers[l];
      series.points.push_back(
          point(layers[l], v, fmt::format("layer {}, {}\n{} changed", layers[l], series.name, text::percent(v))));
    }
    plot.series.push_back(std::move(series));
  }
  return svg_plot(plot);
}

// For more methods than there are colours.
std::string layer_map(const AblationTable& table, const std::vector<int>& layers) {
  HeatMap map;
  map.label = "Selections changed by layer", map.x_label = "layer", map.y_label = "method";
  double most = 0;
  for (const int layer : layers) map.columns.push_back(std::to_string(layer));
  for (std::size_t k = 0; k < table.methods.size(); ++k) {
    const AblationMethod& method = table.methods[k];
    map.rows.push_back(std::to_string(k + 1));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const AblationValue v = l < method.layers.size() ? method.layers[l] : AblationValue{NAN, NAN, NAN, 0};
      if (std::isfinite(v.mean)) most = std::max(most, v.mean);
      map.values.push_back(v.mean);
      map.tooltips.push_back(
          fmt::format("layer {}, {} {}\n{} changed", layers[l], k + 1, method.name, text::percent(v)));
    }
  }
  map.scale = most, map.scale_low = "0", map.scale_high = format_percent(most);
  return svg_heat_map(map);
}

// The page puts the interval below.
std::string percent_cell(const AblationValue& v, int decimals) {
  if (std::isnan(v.mean)) return "n/a";
  const std::string mean = format_percent(v.mean, decimals);
  if (std::isnan(v.low)) return mean;
  return fmt::format("{} [{:.{}f}, {:.{}f}]", mean, 100 * v.low, decimals, 100 * v.high, decimals);
}

std::string number_cell(const AblationValue& v) {
  if (std::isnan(v.mean)) return "n/a";
  if (std::isnan(v.low)) return format_number(v.mean);
  return fmt::format("{} [{}, {}]", format_number(v.mean), format_number(v.low), format_number(v.high));
}

std::string jaccard_cell(const AblationValue& changed) {
  const std::string mean = format_fixed(1 - changed.mean, 4);
  return std::isnan(changed.low) ? mean : fmt::format("{} [{:.4f}, {:.4f}]", mean, 1 - changed.high, 1 - changed.low);
}

HtmlTable figures_table(const AblationReport& report, const AblationTable& table) {
  const std::string base = "against " + report.methods[report.baseline];
  HtmlTable out;
  out.caption = "Methods";
  out.header = {"", "method", "1 − Jaccard", base, "exact set", "KLD", base, "ln(PPL ratio)", "seconds", "bits"};
  out.text_columns = 2;
  for (std::size_t k = 0; k < table.methods.size(); ++k) {
    const AblationMethod& m = table.methods[k];
    out.rows.push_back({std::to_string(k + 1), m.name, percent_cell(figure(m, "one_minus_jaccard"), 3),
                        m.baseline ? "" : text::change(m.changed_ratio), percent_cell(figure(m, "exact_set"), 2),
                        number_cell(figure(m, "kld")), m.baseline ? "" : text::change(m.kld_ratio),
                        number_cell(figure(m, "ln_ratio")), number_cell(figure(m, "seconds")),
                        format_fixed(figure(m, "bits_per_weight").mean, 3)});
  }
  return out;
}

HtmlTable layers_table(const AblationTable& table, const std::vector<int>& layers) {
  HtmlTable out;
  out.caption = "Jaccard by layer";
  out.header = {"method"};
  for (const int layer : layers) out.header.push_back(std::to_string(layer));
  for (const AblationMethod& method : table.methods) {
    std::vector<std::string> row{method.name};
    for (const AblationValue& v : method.layers) row.push_back(jaccard_cell(v));
    out.rows.push_back(std::move(row));
  }
  return out;
}

HtmlTable tasks_table(const AblationTable& table) {
  HtmlTable out;
  out.caption = "Accuracy";
  out.header = text::task_header(table);
  out.rows = text::task_rows(table);
  return out;
}

void add_table(HtmlPage& page, const AblationReport& report, const AblationTable& table) {
  const std::vector<int>& layers = report.models[table.model].moe_layers;
  page.section(text::title(report, table));
  page.plot("Selections changed, by method", "Mean over layers; the marks are 95 % intervals over seeds.",
            method_plot(table));
  const bool lines = table.methods.size() <= kColors;
  page.plot("Selections changed, by layer", lines ? "" : "Rows are methods, by their number in the table.",
            lines ? layer_lines(table, layers) : layer_map(table, layers));
  page.table(figures_table(report, table));
  page.table(layers_table(table, layers));
  if (!table.tasks.empty()) page.table(tasks_table(table));
}

std::string scatter(const AblationReport& report, const AblationMechanism& mechanism) {
  Plot plot;
  plot.label = "Routing changed after the layer against the divergence of predictions";
  plot.x_label = "1 − Jaccard of the layers after it, %", plot.y_label = "KL divergence";
  plot.y_from_zero = true;
  const bool by_method = report.methods.size() <= kColors;
  for (std::size_t k = 0; k < (by_method ? report.methods.size() : 1); ++k) {
    PlotSeries series;
    series.name = by_method ? report.methods[k] : "";
    series.color = static_cast<int>(k), series.line = false;
    for (const AblationRun& run : report.runs) {
      if (run.model != mechanism.model || run.layer < 0 || report.schemes[run.scheme] != mechanism.scheme) continue;
      if ((by_method && run.method != k) || std::isnan(run.changed_after)) continue;
      series.points.push_back(
          {100 * run.changed_after, run.kld, run.kld, run.kld,
           fmt::format("layer {}, {}{}\n{} changed after it\nKLD {}", run.layer, report.methods[run.method],
                       run.seedless ? "" : fmt::format(", seed {}", run.seed), format_percent(run.changed_after, 3),
                       format_number(run.kld))});
    }
    plot.series.push_back(std::move(series));
  }
  return svg_plot(plot);
}

void add_mechanisms(HtmlPage& page, const AblationReport& report) {
  if (report.mechanisms.empty()) return;
  page.section("Does routing that changes go with predictions that move?", text::mechanism_legend());
  for (const AblationMechanism& mechanism : report.mechanisms) {
    if (mechanism.scheme.empty()) continue;
    page.plot(text::title(report, mechanism), "One point per layer, method and seed.", scatter(report, mechanism));
  }
  HtmlTable table;
  table.caption = "Correlation of 1 − Jaccard with the KL divergence";
  table.header = {"", "points", "cells"};
  for (const AblationCorrelation& c : report.mechanisms.front().correlations) {
    table.header.push_back(text::correlation_title(c.name));
  }
  for (const AblationMechanism& mechanism : report.mechanisms) {
    std::vector<std::string> row{text::title(report, mechanism), format_count(mechanism.points),
                                 format_count(mechanism.cells)};
    for (const AblationCorrelation& c : mechanism.correlations) row.push_back(text::correlation(c));
    table.rows.push_back(std::move(row));
  }
  page.table(table);
}

std::string plain_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string out;
  for (const Json& item : value) out += (out.empty() ? "" : " ") + plain_text(item);
  return out;
}

void add_settings(HtmlPage& page, const AblationReport& report) {
  const Json config = Json::parse(report.config_json), provenance = Json::parse(report.provenance_json);
  page.section("What was held equal",
               "All methods get the same models, texts, seeds and calibration data, but for "
               "what their own settings name.");
  std::vector<std::pair<std::string, std::string>> facts;
  for (const Json& method : config.at("methods")) {
    std::string settings;
    for (const auto& [key, value] : method.at("settings").items()) {
      settings += (settings.empty() ? "" : ", ") + key + " " + plain_text(value);
    }
    const Json& calibration = method.at("calibration");
    settings += fmt::format("; {} sequences of {} tokens", calibration.at("nsamples").dump(),
                            calibration.at("seqlen") == 0 ? "up to 2048" : calibration.at("seqlen").dump());
    facts.emplace_back(method.at("name").get<std::string>(), settings);
  }
  facts.emplace_back("seeds", plain_text(config.at("seeds")));
  page.facts(facts);
  page.section("Provenance");
  facts.clear();
  for (const auto& [key, value] : provenance.items()) {
    if (key == "inputs") {
      for (const Json& input : value) {
        facts.emplace_back("SHA-256, " + plain_text(input.at("role")),
                           plain_text(input.at("path")) + " " + plain_text(input.at("sha256")));
      }
    } else if (!value.empty() || value.is_number()) {
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', ' ');
      facts.emplace_back(name, plain_text(value));
    }
  }
  facts.emplace_back("time taken", fmt::format("{:.1f} s ({} runs, {} of them from earlier)", report.seconds,
                                               report.runs.size(), report.runs_resumed));
  page.facts(facts);
}

// The method with the fewest changes in the first table, other than the baseline.
std::string verdict(const AblationReport& report) {
  if (report.tables.empty()) {
    const AblationMechanism& all = report.mechanisms.back();
    return "Rank correlation of changed routing with the divergence of predictions: " +
           text::correlation(all.correlations.at(1)) + ".";
  }
  const AblationTable& table = report.tables.front();
  const AblationMethod* best = nullptr;
  for (const AblationMethod& method : table.methods) {
    const double changed = figure(method, "one_minus_jaccard").mean;
    if (std::isnan(changed)) continue;
    if (best == nullptr || changed < figure(*best, "one_minus_jaccard").mean) best = &method;
  }
  if (best == nullptr) return "No method has figures.";
  const std::string changed = format_percent(figure(*best, "one_minus_jaccard").mean);
  if (best->baseline) {
    return fmt::format("In {}, no method changes fewer selections than {}: {}.", report.schemes[table.scheme],
                       best->name, changed);
  }
  const AblationValue& against = best->changed_ratio;
  return fmt::format("In {}, {} changes the fewest selections: {}, {} against {}{}.", report.schemes[table.scheme],
                     best->name, changed, text::change(against), report.methods[report.baseline],
                     against.low <= 0 && against.high >= 0 ? " (within error)" : "");
}

}  // namespace

std::string ablation_html(const AblationReport& report) {
  const Json config = Json::parse(report.config_json);
  const std::string recipe = config.value("recipe", "");
  HtmlPage page("kedge ablate: " + recipe);
  const std::string where = report.tables.empty() ? "" : text::title(report, report.tables.front()) + ". ";
  page.lead("kedge ablate: " + recipe, verdict(report),
            where + (report.tables.empty() ? fmt::format("{} runs.", report.runs.size()) : text::legend(report)));
  for (const AblationTable& table : report.tables) add_table(page, report, table);
  add_mechanisms(page, report);
  add_settings(page, report);
  return page.str();
}

}  // namespace kedge
