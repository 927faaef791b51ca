// The result of an audit as one HTML page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "kedge/audit.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/text.h"
#include "routing/metrics.h"

namespace kedge {
namespace {

std::string interval_text(const AuditValue& v, int digits = 4) {
  if (std::isnan(v.standard_error)) return format_number(v.mean, digits);
  return fmt::format("{} [{}, {}]", format_number(v.mean, digits), format_number(v.low, 3), format_number(v.high, 3));
}

std::string percent_interval(const AuditValue& v) {
  if (std::isnan(v.standard_error)) return format_percent(v.mean);
  return fmt::format("{:.2f} % [{:.2f}, {:.2f}]", 100 * v.mean, 100 * v.low, 100 * v.high);
}

std::string interval_note(const AuditValue& v, bool percent) {
  if (std::isnan(v.standard_error)) return "no interval";
  return percent ? fmt::format("{:.2f} to {:.2f} %", 100 * v.low, 100 * v.high)
                 : format_number(v.low) + " to " + format_number(v.high);
}

std::string series_name(const AuditComparison& c) {
  return c.name == "int8" ? "int8 activations" : c.mode == "local" ? "local" : "free-running";
}

std::string jaccard_plot(const AuditReport& report) {
  Plot plot;
  plot.label = "Jaccard by layer", plot.x_label = "layer", plot.y_label = "Jaccard", plot.integer_x = true;
  for (std::size_t i = 0; i < report.comparisons.size(); ++i) {
    const AuditComparison& c = report.comparisons[i];
    PlotSeries series;
    series.name = report.comparisons.size() > 1 ? series_name(c) : "";
    series.color = static_cast<int>(i);
    for (const AuditLayer& l : c.layers) {
      const AuditValue& j = metric(l.metrics, "jaccard");
      series.points.push_back({static_cast<double>(l.layer), j.mean, j.low, j.high,
                               fmt::format("layer {}, {}\nJaccard {}", l.layer, series_name(c), interval_text(j))});
    }
    plot.series.push_back(std::move(series));
  }
  return svg_plot(plot);
}

std::string margin_plot(const AuditComparison& c) {
  Plot plot;
  plot.label = "Share of selections that changed against the margin",
  plot.x_label = "margin to the next expert in the original (log scale)";
  plot.y_label = "changed", plot.log_x = plot.y_from_zero = plot.y_percent = true;
  std::int64_t most = 1;
  std::int64_t all = 0;
  for (const AuditMarginBin& bin : c.flips_by_margin) most = std::max(most, bin.tokens), all += bin.tokens;
  PlotSeries series;
  series.name = "share changed";
  for (const AuditMarginBin& bin : c.flips_by_margin) {
    // A few outliers would stretch the axis over decades without anything to see.
    if (plot.background.empty() && bin.tokens * 10000 < all) continue;
    const std::string text = fmt::format("margin {} to {}\n{} of {} changed", format_number(bin.low, 2),
                                         format_number(bin.high, 2), format_count(bin.flips), format_count(bin.tokens));
    plot.background.push_back({bin.low, bin.high, static_cast<double>(bin.tokens) / static_cast<double>(most), text});
    if (bin.tokens == 0) continue;
    const AuditValue& rate = bin.flip_rate;
    // A handful of tokens says nothing about a share.
    if (bin.tokens < 10) continue;
    series.points.push_back({std::sqrt(bin.low * bin.high), rate.mean, std::max(0.0, rate.low),
                             std::min(1.0, rate.high), text + "\n" + percent_interval(rate)});
  }
  plot.series.push_back(std::move(series));
  plot.background_name = "how many have this margin";
  return svg_plot(plot);
}

std::string first_flip_plot(const AuditComparison& c) {
  BarChart chart;
  chart.label = "First layer that changes", chart.x_label = "layer", chart.y_label = "tokens", chart.y_percent = true;
  PlotSeries series;
  auto add = [&](const std::string& category, const std::string& text, const AuditValue& v) {
    chart.categories.push_back(category);
    series.points.push_back({0, v.mean, v.low, v.high, text + "\n" + percent_interval(v)});
  };
  for (const AuditLayer& l : c.layers)
    add(std::to_string(l.layer), fmt::format("first changed in layer {}", l.layer), l.first_flip);
  chart.series.push_back(std::move(series));
  return svg_bars(chart);
}

std::string kld_plot(const AuditReport& report) {
  Plot plot;
  plot.label = "KL divergence by position", plot.x_label = "position in the sequence", plot.y_label = "KL divergence",
  plot.y_from_zero = true;
  for (std::size_t i = 0; i < report.comparisons.size(); ++i) {
    const AuditComparison& c = report.comparisons[i];
    if (!c.has_language()) continue;
    PlotSeries series;
    series.name = report.comparisons.size() > 1 ? series_name(c) : "";
    series.color = static_cast<int>(i), series.band = true;
    for (const AuditPositionBin& bin : c.kld_by_position) {
      series.points.push_back(
          {(static_cast<double>(bin.begin) + static_cast<double>(bin.end) - 1) / 2, bin.kld.mean,
           std::max(0.0, bin.kld.low), bin.kld.high,
           fmt::format("positions {} to {}\nKLD {}", bin.begin, bin.end - 1, interval_text(bin.kld, 3))});
    }
    plot.series.push_back(std::move(series));
  }
  return svg_plot(plot);
}

enum class LoadView { original, quantized, change };

// Load of an expert as a multiple of a balanced one, so that 1 is fair in every layer.
double relative_load(const AuditLayer& layer, std::size_t expert, bool quantized) {
  const auto& load = quantized ? layer.tokens_per_expert_quantized : layer.tokens_per_expert_original;
  double total = 0;
  for (std::int64_t n : load) total += static_cast<double>(n);
  return total == 0 ? 0 : static_cast<double>(load[expert]) * static_cast<double>(load.size()) / total;
}

std::string load_map(const AuditComparison& c, LoadView view) {
  HeatMap map;
  map.label = "Expert load", map.x_label = "expert", map.y_label = "layer", map.diverging = view == LoadView::change;
  std::size_t experts = 0;
  for (const AuditLayer& l : c.layers) experts = std::max(experts, l.tokens_per_expert_original.size());
  for (std::size_t e = 0; e < experts; ++e) map.columns.push_back(std::to_string(e));
  double most = 0, most_change = 0;
  for (const AuditLayer& l : c.layers) {
    map.rows.push_back(std::to_string(l.layer));
    for (std::size_t e = 0; e < experts; ++e) {
      const bool has = e < l.tokens_per_expert_original.size();
      const double before = has ? relative_load(l, e, false) : 0, after = has ? relative_load(l, e, true) : 0;
      most = std::max({most, before, after}), most_change = std::max(most_change, std::fabs(after - before));
      map.values.push_back(view == LoadView::original ? before : view == LoadView::quantized ? after : after - before);
      map.tooltips.push_back(
          !has ? std::string()
               : fmt::format("layer {}, expert {}\noriginal {} tokens ({:.2f}×)\nquantized {} tokens ({:.2f}×)",
                             l.layer, e, format_count(l.tokens_per_expert_original[e]), before,
                             format_count(l.tokens_per_expert_quantized[e]), after));
    }
  }
  map.scale = view == LoadView::change ? most_change : most;
  map.scale_low = view == LoadView::change ? "−" + format_number(most_change, 2) + "×" : "0";
  map.scale_high =
      view == LoadView::change ? "+" + format_number(most_change, 2) + "×" : fmt::format("{:.1f}× a fair share", most);
  return svg_heat_map(map);
}

// The layer's number and the columns [begin, end).
HtmlTable some_columns(const HtmlTable& all, std::size_t begin, std::size_t end, std::string caption) {
  const auto pick = [&](const std::vector<std::string>& row) {
    std::vector<std::string> out{row.front()};
    out.insert(out.end(), row.begin() + static_cast<std::ptrdiff_t>(begin),
               row.begin() + static_cast<std::ptrdiff_t>(end));
    return out;
  };
  HtmlTable table{all};
  table.caption = std::move(caption);
  table.header = pick(all.header);
  for (std::vector<std::string>& row : table.rows) row = pick(row);
  return table;
}

HtmlTable all_layer_columns(const AuditComparison& c) {
  HtmlTable table;
  table.header = {"layer"};
  table.last_row_is_total = true;
  const auto cells = [](const AuditMetrics& metrics) {
    std::vector<std::string> row;
    for (const RoutingMetric& m : routing_metrics()) {
      const std::string_view name = m.name;
      row.push_back(name == "jaccard" || name == "margin" || name == "margin_at_flip" || name == "weighted_agreement"
                        ? interval_text(metric(metrics, name))
                        : percent_interval(metric(metrics, name)));
    }
    for (const LoadMetric& m : load_metrics()) row.push_back(interval_text(metric(metrics, m.name), 3));
    return row;
  };
  for (const RoutingMetric& m : routing_metrics()) table.header.push_back(m.title);
  for (const LoadMetric& m : load_metrics()) table.header.push_back(m.title);
  table.header.insert(table.header.end(), {"dead experts", "fewest tokens", "first changed here"});
  for (const AuditLayer& l : c.layers) {
    std::vector<std::string> row{std::to_string(l.layer)};
    const auto values = cells(l.metrics);
    row.insert(row.end(), values.begin(), values.end());
    row.push_back(fmt::format("{} → {}", l.dead_original, l.dead_quantized));
    const auto fewest = [](const std::vector<std::int64_t>& load) {
      return load.empty() ? std::string("n/a") : format_count(*std::min_element(load.begin(), load.end()));
    };
    row.push_back(fewest(l.tokens_per_expert_original) + " → " + fewest(l.tokens_per_expert_quantized));
    row.push_back(percent_interval(l.first_flip));
    table.rows.push_back(std::move(row));
  }
  std::vector<std::string> mean{"all"};
  const auto values = cells(c.mean);
  mean.insert(mean.end(), values.begin(), values.end());
  mean.insert(mean.end(), {"", "", ""});
  table.rows.push_back(std::move(mean));
  return table;
}

// Two tables: the page's width holds about nine columns.
void add_layer_tables(HtmlPage& page, const AuditComparison& c) {
  const std::string what =
      fmt::format("by layer: {}, {} activations", c.mode == "local" ? "local" : "free-running", c.activations);
  const HtmlTable all = all_layer_columns(c);
  const std::size_t split = 1 + routing_metric_index("margin");
  page.table(some_columns(all, 1, split, "Routing " + what));
  page.table(some_columns(all, split, all.header.size(), "Margins and load " + what));
}

HtmlTable language_table(const std::vector<std::pair<std::string, const AuditMetrics*>>& columns, const char* caption) {
  HtmlTable table;
  table.caption = caption;
  table.header = {""};
  for (const auto& [name, metrics] : columns) table.header.push_back(name);
  struct Row {
    const char* title;
    const char* key;
    bool percent;
  };
  for (const Row& row :
       {Row{"perplexity, original", "perplexity_original", false},
        Row{"perplexity, quantized", "perplexity_quantized", false}, Row{"ln of the ratio", "ln_ratio", false},
        Row{"KLD mean", "kld", false}, Row{"KLD median", "kld_median", false}, Row{"KLD 90 %", "kld_p90", false},
        Row{"KLD 99 %", "kld_p99", false}, Row{"KLD max", "kld_max", false}, Row{"same top token", "same_top", true},
        Row{"Δp mean", "delta_p", true}, Row{"Δp RMS", "delta_p_rms", true}}) {
    std::vector<std::string> cells{row.title};
    for (const auto& [name, metrics] : columns)
      cells.push_back(row.percent ? percent_interval(metric(*metrics, row.key))
                                  : interval_text(metric(*metrics, row.key)));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

std::vector<KeyFigure> key_figures(const AuditComparison& c) {
  const auto& mean = c.mean;
  std::vector<KeyFigure> figures{
      {"Jaccard", format_fixed(metric(mean, "jaccard").mean, 4), interval_note(metric(mean, "jaccard"), false)},
      {"Same expert set", format_percent(metric(mean, "exact_set").mean),
       interval_note(metric(mean, "exact_set"), true)},
      {"Same in all layers", format_percent(c.unchanged_everywhere.mean), interval_note(c.unchanged_everywhere, true)}};
  if (!c.has_language()) return figures;
  figures.push_back(
      {"KL divergence", format_number(metric(mean, "kld").mean), interval_note(metric(mean, "kld"), false)});
  figures.push_back(
      {"Same top token", format_percent(metric(mean, "same_top").mean), interval_note(metric(mean, "same_top"), true)});
  figures.push_back({"Perplexity", format_number(metric(mean, "perplexity_quantized").mean, 5),
                     "original " + format_number(metric(mean, "perplexity_original").mean, 5)});
  return figures;
}

void add_plots(HtmlPage& page, const AuditReport& report) {
  const AuditComparison& c = report.comparisons.front();
  page.section(
      "Where routing changes",
      "Lines through marks and bands are 95 % intervals over sequences. Touch or point at a mark for its figures.");
  page.plot("Agreement by layer", "Jaccard overlap of the expert sets: 1 is no change.", jaccard_plot(report));
  page.plot("Changes against the margin", "The closer the first expert left out was, the easier a selection changes.",
            margin_plot(c));
  page.plot("First layer that changes",
            fmt::format("Share of tokens; {} never change.", format_percent(c.unchanged_everywhere.mean, 1)),
            first_flip_plot(c));
  if (c.has_language())
    page.plot("KL divergence by position", "Original against quantized; mean over sequences.", kld_plot(report));
  page.section("Expert load",
               "Tokens per expert as a multiple of a fair share of its layer; change is quantized minus original.");
  std::int64_t experts = 0;
  for (const AuditLayer& l : c.layers) experts = std::max(experts, l.experts);
  const PlotWidth width = experts <= 32 ? PlotWidth::third : PlotWidth::full;
  page.plot("Original", "", load_map(c, LoadView::original), width);
  page.plot("Quantized", "", load_map(c, LoadView::quantized), width);
  page.plot("Change", "", load_map(c, LoadView::change), width);
}

void add_tables(HtmlPage& page, const AuditReport& report) {
  page.section("All figures", "Means with 95 % intervals over sequences.");
  std::vector<std::pair<std::string, const AuditMetrics*>> columns;
  for (const AuditComparison& c : report.comparisons) {
    if (c.has_language()) columns.emplace_back(c.activations, &c.mean);
  }
  if (!columns.empty())
    page.table(language_table(columns, "Next-token predictions (natural log), by the quantized model's activations"));
  for (const AuditComparison& c : report.comparisons) add_layer_tables(page, c);
  const AuditComparison& c = report.comparisons.front();
  if (c.by_text.empty()) return;
  HtmlTable table;
  table.caption = "By text";
  table.header = {"text", "Jaccard", "same expert set"};
  if (c.has_language()) table.header.insert(table.header.end(), {"KLD mean", "ln of the ratio"});
  for (const auto& [text, metrics] : c.by_text) {
    std::vector<std::string> row{text, interval_text(metric(metrics, "jaccard")),
                                 percent_interval(metric(metrics, "exact_set"))};
    if (c.has_language())
      row.insert(row.end(), {interval_text(metric(metrics, "kld")), interval_text(metric(metrics, "ln_ratio"))});
    table.rows.push_back(std::move(row));
  }
  page.table(table);
}

void add_definitions(HtmlPage& page) {
  page.section("What the figures mean",
               "S: the experts that the original chose for a token; Ŝ: the quantized model's; w, ŵ: their weights; s: "
               "the original's selection scores.");
  std::vector<std::pair<std::string, std::string>> facts;
  for (const RoutingMetric& m : routing_metrics()) facts.emplace_back(m.title, m.formula);
  for (const LoadMetric& m : load_metrics()) facts.emplace_back(m.title, m.formula);
  facts.emplace_back("KLD",
                     "KL divergence of the original's next-token distribution from the quantized model's, natural log");
  facts.emplace_back("Δp", "probability of the text's next token, quantized minus original");
  page.facts(facts);
}

std::string plain_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value) text += (text.empty() ? "" : " ") + plain_text(item);
  return text;
}

void add_provenance(HtmlPage& page, const AuditReport& report) {
  page.section("Provenance");
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto* model : {&report.original, &report.quantized}) {
    facts.emplace_back(
        model == &report.original ? "original" : "quantized",
        fmt::format("{} ({}{}{}, {} bytes)", model->path, model->model_type, model->quant_format.empty() ? "" : ", ",
                    model->quant_format, format_count(static_cast<std::int64_t>(model->file_bytes))));
  }
  for (const std::string& text : report.texts) facts.emplace_back("text", text);
  const Json provenance = Json::parse(report.provenance_json);
  for (const auto& [key, value] : provenance.items()) {
    if (key == "inputs") {
      for (const Json& input : value)
        facts.emplace_back("SHA-256, " + plain_text(input.at("role")), plain_text(input.at("sha256")));
    } else if (!value.empty() || value.is_number()) {
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', ' ');
      facts.emplace_back(name, plain_text(value));
    }
  }
  facts.emplace_back("time taken", fmt::format("{:.1f} s", report.seconds));
  page.facts(facts);
}

}  // namespace

std::string audit_html(const AuditReport& report) {
  HtmlPage page("kedge audit: " + report.quantized.path);
  const AuditComparison& c = report.comparisons.front();
  page.lead(
      "kedge audit: " + report.quantized.path + " against " + report.original.path, audit_verdict(report),
      fmt::format("{}, with {} activations. {} sequences of up to {} tokens, {} tokens in all; {} MoE layers of {} "
                  "experts, {} per token.",
                  c.mode == "local" ? "Each quantized layer was given the original's hidden states"
                                    : "Both models ran freely, so errors accumulate",
                  c.activations, format_count(report.sequences), format_count(report.seqlen),
                  format_count(report.tokens), c.layers.size(), c.layers.front().experts, c.layers.front().top_k));
  page.key_figures(key_figures(c));
  add_plots(page, report);
  add_tables(page, report);
  add_definitions(page);
  add_provenance(page, report);
  return page.str();
}

}  // namespace kedge
