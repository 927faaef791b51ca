#include "train/page.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/json.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/text.h"

namespace kedge::training {
namespace {

// Points of a curve: more are no clearer at the width of a page.
constexpr std::size_t kMaxPoints = 300;

double number(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number() ? json[key].get<double>() : std::nan("");
}

/// The steps' lines.
std::vector<const Json*> steps_of(const std::vector<Json>& lines) {
  std::vector<const Json*> out;
  for (const Json& line : lines) {
    if (line.contains("loss")) out.push_back(&line);
  }
  return out;
}

/// Means over equal stretches of the steps.
template <class F>
PlotSeries curve(const std::string& name, int color, const std::vector<const Json*>& steps, F&& value) {
  PlotSeries series{.name = name, .color = color};
  const std::size_t stretch = (steps.size() + kMaxPoints - 1) / kMaxPoints;
  for (std::size_t begin = 0; begin < steps.size(); begin += stretch) {
    const std::size_t end = std::min(steps.size(), begin + stretch);
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += value(*steps[i]);
    const double mean = sum / static_cast<double>(end - begin);
    const double step = number(*steps[end - 1], "step");
    series.points.push_back({step, mean, mean, mean, fmt::format("step {}\n{}", step, format_number(mean, 4))});
  }
  return series;
}

std::string plot_of(const std::string& label, std::vector<PlotSeries> series) {
  Plot plot;
  plot.label = plot.y_label = label;
  plot.x_label = "step";
  plot.integer_x = true;
  plot.series = std::move(series);
  return svg_plot(plot);
}

PlotSeries measured(const std::vector<Json>& lines) {
  PlotSeries series{.name = "validation", .color = 1};
  for (const Json& line : lines) {
    if (!line.contains("valid_loss")) continue;
    const double loss = number(line, "valid_loss"), step = number(line, "step");
    series.points.push_back(
        {step, loss, loss, loss, fmt::format("step {}\nvalidation {}", step, format_number(loss, 4))});
  }
  return series;
}

/// By layer, the busiest expert over the mean; six colours, so the first, the last and those between.
std::vector<PlotSeries> loads(const std::vector<const Json*>& steps, std::size_t layers) {
  std::vector<PlotSeries> out;
  const std::size_t shown = std::min<std::size_t>(layers, 6);
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t layer = shown == 1 ? 0 : i * (layers - 1) / (shown - 1);
    out.push_back(curve(fmt::format("MoE layer {}", layer), static_cast<int>(i), steps,
                        [&](const Json& line) { return line["peak_load"][layer].get<double>(); }));
  }
  return out;
}

/// counts: [layer][expert].
std::string load_map(const Json& counts) {
  HeatMap map;
  map.label = "Share of the choices by layer and expert", map.x_label = "expert", map.y_label = "MoE layer";
  std::size_t experts = 0;
  for (const Json& layer : counts) experts = std::max(experts, layer.size());
  for (std::size_t e = 0; e < experts; ++e) map.columns.push_back(std::to_string(e));
  for (std::size_t l = 0; l < counts.size(); ++l) {
    map.rows.push_back(std::to_string(l));
    double total = 0;
    for (const Json& count : counts[l]) total += count.get<double>();
    for (std::size_t e = 0; e < experts; ++e) {
      const double share = e < counts[l].size() ? counts[l][e].get<double>() / total : std::nan("");
      map.values.push_back(share);
      map.tooltips.push_back(fmt::format("MoE layer {}, expert {}\n{}", l, e, format_percent(share)));
    }
  }
  map.scale_low = "0", map.scale_high = format_percent(*std::max_element(map.values.begin(), map.values.end()), 1);
  return svg_heat_map(map);
}

void add_plots(HtmlPage& page, const std::vector<Json>& lines) {
  const std::vector<const Json*> steps = steps_of(lines);
  const auto of = [&](const char* key) {
    return curve("", 0, steps, [key](const Json& line) { return number(line, key); });
  };
  PlotSeries loss = of("loss"), valid = measured(lines);
  std::vector<PlotSeries> losses;
  if (valid.points.empty()) {
    losses = {loss};
  } else {
    loss.name = "training";
    losses = {loss, valid};
  }
  page.section("Curves", "Means over stretches of the steps where there are many.");
  page.plot("Loss", "Nats per token.", plot_of("loss", std::move(losses)));
  page.plot("Learning rate", "", plot_of("learning rate", {of("lr")}));
  page.plot("Norm of the gradient", "Before clipping.", plot_of("norm", {of("gradient_norm")}));
  page.plot("Speed", "", plot_of("tokens/s", {of("tokens_per_second")}));
  if (steps.empty() || steps.front()->at("peak_load").empty()) return;
  page.section("Experts", "How evenly tokens spread over the experts of a layer.");
  page.plot("Busiest expert over the mean", "1 is even.",
            plot_of("times the mean", loads(steps, steps.front()->at("peak_load").size())));
  if (!std::isnan(number(*steps.front(), "balance_loss"))) {
    page.plot("Balance loss", "1 is even.", plot_of("balance loss", {of("balance_loss")}));
  }
  if (!std::isnan(number(*steps.front(), "reconstruction_loss"))) {
    page.plot("Reconstruction error", "Of the selected experts, mean over the layers.",
              plot_of("reconstruction error", {of("reconstruction_loss")}));
  }
  const auto last =
      std::find_if(lines.rbegin(), lines.rend(), [](const Json& l) { return l.contains("expert_counts"); });
  if (last != lines.rend()) {
    page.plot("Load on the validation text", "Share of the choices.", load_map((*last)["expert_counts"]),
              PlotWidth::full);
  }
}

std::string plain_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

void add_facts(HtmlPage& page, const Json& record) {
  for (const char* part : {"config", "provenance"}) {
    page.section(part == std::string("config") ? "Settings" : "Provenance");
    std::vector<std::pair<std::string, std::string>> facts;
    for (const auto& [key, value] : record[part].items()) {
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', ' ');
      facts.emplace_back(name, plain_text(value));
    }
    page.facts(facts);
  }
}

}  // namespace

std::string training_page(const Json& record, const std::vector<Json>& lines) {
  const Json& results = record["results"];
  const double loss = number(results, "loss"), valid = number(results, "valid_loss");
  const std::string type = results["model_type"].get<std::string>();
  HtmlPage page("kedge train: " + type);
  page.lead("kedge train: " + type,
            fmt::format("Loss {} nats per token{}", format_fixed(loss, 3),
                        std::isnan(valid) ? "" : fmt::format(", {} on the validation text", format_fixed(valid, 3))),
            fmt::format("{} steps, {} tokens in all; {} by {}.", format_count(results["steps"]),
                        format_count(results["tokens"]), plain_text(record["config"]["optimizer"]),
                        plain_text(record["config"]["schedule"])));
  double peak = 0;
  for (const Json& load : results["expert_load"]) peak = std::max(peak, load.get<double>());
  page.key_figures({{"loss", format_fixed(loss, 3), "mean of the last tenth"},
                    {"validation", format_fixed(valid, 3), std::isnan(valid) ? "not measured" : "nats per token"},
                    {"parameters", format_count(results["parameters"]),
                     format_count(results["active_parameters"]) + " for each token"},
                    {"busiest expert", format_fixed(peak, 2) + " x", "of the mean, in the worst layer"}});
  add_plots(page, lines);
  add_facts(page, record);
  return page.str();
}

}  // namespace kedge::training
