// The results of an ablation as tables for a terminal, as Markdown, and as JSON (docs/formats/ablation.md).
#include <fmt/format.h>

#include <cmath>

#include "base/json.h"
#include "claims/ablation_text.h"
#include "kedge/ablate.h"
#include "record/envelope.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

namespace text = ablation_text;

std::vector<std::string> header_cells(const AblationReport& report) {
  const std::string& base = report.methods[report.baseline];
  return {"method",          "1 − Jaccard",   "against " + base, "exact set", "KLD",
          "against " + base, "ln(PPL ratio)", "seconds",         "bits"};
}

std::vector<std::string> method_cells(const AblationMethod& method) {
  const auto against = [&](const AblationValue& ratio) {
    return method.baseline ? std::string() : text::change(ratio);
  };
  return {method.name,
          text::percent(figure(method, "one_minus_jaccard")),
          against(method.changed_ratio),
          text::percent(figure(method, "exact_set"), 2),
          text::number(figure(method, "kld")),
          against(method.kld_ratio),
          text::number(figure(method, "ln_ratio")),
          format_fixed(figure(method, "seconds").mean, 1),
          format_fixed(figure(method, "bits_per_weight").mean, 3)};
}

std::vector<std::string> layer_header(const AblationReport& report, const AblationTable& table) {
  std::vector<std::string> cells{"Jaccard by layer"};
  for (const int layer : report.models[table.model].moe_layers) cells.push_back(std::to_string(layer));
  return cells;
}

std::vector<std::string> layer_cells(const AblationMethod& method) {
  std::vector<std::string> cells{method.name};
  for (const AblationValue& layer : method.layers) cells.push_back(format_fixed(1 - layer.mean, 4));
  return cells;
}

std::vector<std::string> mechanism_header(const AblationReport& report) {
  std::vector<std::string> cells{"routing changed after the layer, against KLD", "points", "cells"};
  for (const AblationCorrelation& c : report.mechanisms.front().correlations) {
    cells.push_back(text::correlation_title(c.name));
  }
  return cells;
}

std::vector<std::string> mechanism_cells(const AblationReport& report, const AblationMechanism& mechanism) {
  std::vector<std::string> cells{text::title(report, mechanism), format_count(mechanism.points),
                                 format_count(mechanism.cells)};
  for (const AblationCorrelation& c : mechanism.correlations) cells.push_back(text::correlation(c));
  return cells;
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) {
    out += " ";
    for (const char c : cell) out += c == '|' ? std::string("\\|") : std::string(1, c == '\n' ? ' ' : c);
    out += " |";
  }
  return out + "\n";
}

std::string markdown_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::string out = markdown_row(header) + "|---|";
  for (std::size_t i = 1; i < header.size(); ++i) out += "---:|";
  out += "\n";
  for (const auto& row : rows) out += markdown_row(row);
  return out;
}

Json value_json(const AblationValue& v) { return {{"mean", v.mean}, {"low", v.low}, {"high", v.high}, {"n", v.n}}; }

Json method_json(const AblationMethod& method) {
  Json json{{"name", method.name}, {"baseline", method.baseline}, {"seedless", method.seedless}};
  for (const auto& [name, value] : method.figures) json[name] = value_json(value);
  json["one_minus_jaccard_change"] = value_json(method.changed_ratio);
  json["kld_change"] = value_json(method.kld_ratio);
  json["one_minus_jaccard_by_layer"] = Json::array();
  for (const AblationValue& layer : method.layers) json["one_minus_jaccard_by_layer"].push_back(value_json(layer));
  for (std::size_t t = 0; t < method.tasks.size(); ++t) {
    json["tasks"].push_back(
        {{"accuracy", value_json(method.tasks[t])}, {"change", value_json(method.task_changes[t])}});
  }
  return json;
}

Json tasks_json(const std::vector<AblationTask>& tasks, bool quantized) {
  Json json = Json::array();
  for (const AblationTask& task : tasks) {
    json.push_back(
        {{"name", task.name}, {"metric", task.metric}, {"samples", task.samples}, {"original", task.original}});
    if (quantized) json.back()["quantized"] = task.quantized;
  }
  return json;
}

Json mechanism_json(const AblationReport& report, const AblationMechanism& mechanism) {
  Json json{{"model", report.models[mechanism.model].path},
            {"scheme", mechanism.scheme.empty() ? Json(nullptr) : Json(mechanism.scheme)},
            {"points", mechanism.points},
            {"cells", mechanism.cells}};
  for (const AblationCorrelation& c : mechanism.correlations) {
    json[c.name] = {{"value", c.value}, {"low", c.low}, {"high", c.high}};
  }
  return json;
}

Json run_json(const AblationReport& report, const AblationRun& run) {
  Json json{{"model", report.models[run.model].path},
            {"scheme", report.schemes[run.scheme]},
            {"method", report.methods[run.method]},
            {"seed", run.seedless ? Json(nullptr) : Json(run.seed)},
            {"layer", run.layer < 0 ? Json(nullptr) : Json(run.layer)},
            {"one_minus_jaccard", run.one_minus_jaccard},
            {"exact_set", run.exact_set},
            {"kld", run.kld},
            {"ln_ratio", run.ln_ratio},
            {"changed_after", run.changed_after},
            {"seconds", run.seconds},
            {"bits_per_weight", run.bits_per_weight},
            {"one_minus_jaccard_by_layer", run.layers},
            {"record", run.record}};
  if (!run.tasks.empty()) json["tasks"] = tasks_json(run.tasks, true);
  return json;
}

}  // namespace

std::string ablation_table(const AblationReport& report) {
  std::string out;
  if (!report.tables.empty()) out += text::legend(report) + "\n";
  for (const AblationTable& table : report.tables) {
    out += "\n" + text::title(report, table) + "\n";
    TextTable figures(header_cells(report)), layers(layer_header(report, table));
    for (const AblationMethod& method : table.methods) {
      figures.add_row(method_cells(method));
      layers.add_row(layer_cells(method));
    }
    out += figures.str() + layers.str();
    if (table.tasks.empty()) continue;
    TextTable tasks(text::task_header(table));
    for (const auto& row : text::task_rows(table)) tasks.add_row(row);
    out += tasks.str();
  }
  if (report.mechanisms.empty()) return out;
  TextTable mechanisms(mechanism_header(report));
  for (const AblationMechanism& mechanism : report.mechanisms) {
    mechanisms.add_row(mechanism_cells(report, mechanism));
  }
  return out + (out.empty() ? "" : "\n") + text::mechanism_legend() + "\n\n" + mechanisms.str();
}

std::string ablation_markdown(const AblationReport& report) {
  const Json provenance = Json::parse(report.provenance_json), config = Json::parse(report.config_json);
  std::string out = fmt::format("<!-- Printed by kedge ablate from its records: {}, kedge {} (git {}), {}. -->\n",
                                config.value("recipe", ""), provenance.value("kedge_version", ""),
                                provenance.value("git_hash", ""), provenance.value("date", ""));
  if (!report.tables.empty()) out += "\n" + text::legend(report) + "\n";
  for (const AblationTable& table : report.tables) {
    std::vector<std::vector<std::string>> figures, layers;
    for (const AblationMethod& method : table.methods) {
      figures.push_back(method_cells(method));
      layers.push_back(layer_cells(method));
    }
    out += "\n**" + text::title(report, table) + "**\n\n" + markdown_table(header_cells(report), figures) + "\n" +
           markdown_table(layer_header(report, table), layers);
    if (!table.tasks.empty()) out += "\n" + markdown_table(text::task_header(table), text::task_rows(table));
  }
  if (report.mechanisms.empty()) return out;
  std::vector<std::vector<std::string>> rows;
  for (const AblationMechanism& mechanism : report.mechanisms) rows.push_back(mechanism_cells(report, mechanism));
  return out + "\n" + text::mechanism_legend() + "\n\n" + markdown_table(mechanism_header(report), rows);
}

std::string ablation_json(const AblationReport& report) {
  Json results{{"sequences", report.sequences},
               {"tokens", report.tokens},
               {"runs", report.runs.size()},
               {"runs_done", report.runs_done},
               {"runs_resumed", report.runs_resumed},
               {"runs_with_warnings", report.runs_with_warnings},
               {"seconds", report.seconds}};
  results["models"] = Json::array();
  for (const AblationModel& model : report.models) {
    results["models"].push_back({{"path", model.path},
                                 {"model_type", model.model_type},
                                 {"sha256", model.sha256},
                                 {"moe_layers", model.moe_layers}});
  }
  results["tables"] = Json::array();
  for (const AblationTable& table : report.tables) {
    Json methods = Json::array();
    for (const AblationMethod& method : table.methods) methods.push_back(method_json(method));
    results["tables"].push_back({{"model", report.models[table.model].path},
                                 {"scheme", report.schemes[table.scheme]},
                                 {"methods", std::move(methods)}});
    if (!table.tasks.empty()) results["tables"].back()["tasks"] = tasks_json(table.tasks, false);
  }
  results["mechanism"] = Json::array();
  for (const AblationMechanism& mechanism : report.mechanisms) {
    results["mechanism"].push_back(mechanism_json(report, mechanism));
  }
  Json samples = Json::array();
  for (const AblationRun& run : report.runs) samples.push_back(run_json(report, run));
  return envelope_text({{"schema", "kedge.ablation/1"},
                        {"provenance", Json::parse(report.provenance_json)},
                        {"config", Json::parse(report.config_json)},
                        {"results", std::move(results)},
                        {"samples", std::move(samples)}});
}

}  // namespace kedge
