// The result of an audit as a sentence, as tables for a terminal, and as JSON (docs/formats/audit-report.md).
#include <fmt/format.h>

#include <cmath>

#include "base/json.h"
#include "kedge/audit.h"
#include "record/envelope.h"
#include "report/table.h"
#include "report/text.h"

namespace kedge {
namespace {

std::string with_error(const AuditValue& v, int decimals) {
  if (std::isnan(v.mean)) return "n/a";
  const std::string mean = fmt::format("{:.{}f}", v.mean, decimals);
  return std::isnan(v.standard_error) ? mean : fmt::format("{} ± {:.{}f}", mean, v.standard_error, decimals);
}

std::string number_with_error(const AuditValue& v) {
  if (std::isnan(v.mean)) return "n/a";
  return std::isnan(v.standard_error) ? format_number(v.mean)
                                      : format_number(v.mean) + " ± " + format_number(v.standard_error, 2);
}

std::string percent_with_error(const AuditValue& v) {
  if (std::isnan(v.mean)) return "n/a";
  return std::isnan(v.standard_error) ? format_percent(v.mean)
                                      : fmt::format("{:.2f} ± {:.2f} %", 100 * v.mean, 100 * v.standard_error);
}

std::string share(const AuditValue& v) { return std::isnan(v.mean) ? "n/a" : fmt::format("{:.4f}", v.mean); }

std::vector<std::string> routing_row(const std::string& name, const AuditMetrics& m, const std::string& dead,
                                     const std::string& first) {
  return {
      name,
      with_error(metric(m, "jaccard"), 4),
      share(metric(m, "exact_set")),
      share(metric(m, "top1")),
      share(metric(m, "order_inversions")),
      share(metric(m, "weighted_agreement")),
      format_number(metric(m, "margin").mean),
      format_number(metric(m, "margin_at_flip").mean),
      format_number(metric(m, "js_divergence").mean, 2),
      format_number(metric(m, "gini_original").mean, 2) + " → " + format_number(metric(m, "gini_quantized").mean, 2),
      dead,
      first};
}

std::string routing_table(const AuditComparison& c) {
  TextTable table({"layer", "Jaccard", "exact set", "top-1", "inversions", "weighted", "margin", "at flip", "load JS",
                   "Gini", "dead", "first flip"});
  std::int64_t dead_original = 0, dead_quantized = 0;
  for (const AuditLayer& l : c.layers) {
    dead_original += l.dead_original, dead_quantized += l.dead_quantized;
    table.add_row(routing_row(std::to_string(l.layer), l.metrics,
                              fmt::format("{} → {}", l.dead_original, l.dead_quantized),
                              format_percent(l.first_flip.mean)));
  }
  table.add_rule();
  table.add_row(routing_row("mean", c.mean, fmt::format("{} → {}", dead_original, dead_quantized), ""));
  return table.str();
}

std::string title_of(const AuditComparison& c) {
  return fmt::format("{}, {} activations",
                     c.mode == "local" ? "Local: each layer on the original's hidden states" : "Free-running",
                     c.activations);
}

std::string language_table(const AuditReport& report) {
  std::vector<const AuditComparison*> columns;
  std::vector<std::string> header{"", "original"};
  for (const AuditComparison& c : report.comparisons) {
    if (!c.has_language()) continue;
    columns.push_back(&c);
    header.push_back(c.name == "int8" ? "quantized, int8 activations" : "quantized");
  }
  if (columns.empty()) return {};
  TextTable table(header);
  const auto row = [&](const char* title, const char* original, const char* key, auto&& format) {
    std::vector<std::string> cells{title, original ? format(metric(columns[0]->mean, original)) : ""};
    for (const AuditComparison* c : columns) cells.push_back(format(metric(c->mean, key)));
    table.add_row(std::move(cells));
  };
  row("perplexity", "perplexity_original", "perplexity_quantized",
      [](const AuditValue& v) { return with_error(v, 3); });
  row("ln(PPL ratio)", nullptr, "ln_ratio", number_with_error);
  for (const auto& [title, key] :
       {std::pair{"KLD mean", "kld"}, std::pair{"KLD median", "kld_median"}, std::pair{"KLD 90 %", "kld_p90"},
        std::pair{"KLD 99 %", "kld_p99"}, std::pair{"KLD max", "kld_max"}}) {
    row(title, nullptr, key, number_with_error);
  }
  row("same top token", nullptr, "same_top", percent_with_error);
  row("Δp mean", nullptr, "delta_p", percent_with_error);
  row("Δp RMS", nullptr, "delta_p_rms", percent_with_error);
  return table.str();
}

Json value_json(const AuditValue& v) {
  return {{"mean", v.mean}, {"low", v.low}, {"high", v.high}, {"standard_error", v.standard_error}, {"n", v.n}};
}

Json metrics_json(const AuditMetrics& metrics) {
  Json json = Json::object();
  for (const auto& [name, value] : metrics) json[name] = value_json(value);
  return json;
}

Json layer_json(const AuditLayer& layer) {
  Json json{{"layer", layer.layer}, {"experts", layer.experts}, {"top_k", layer.top_k}};
  json.update(metrics_json(layer.metrics));
  json["first_flip"] = value_json(layer.first_flip);
  json["dead_original"] = layer.dead_original;
  json["dead_quantized"] = layer.dead_quantized;
  json["tokens_per_expert_original"] = layer.tokens_per_expert_original;
  json["tokens_per_expert_quantized"] = layer.tokens_per_expert_quantized;
  return json;
}

Json comparison_json(const AuditComparison& c) {
  Json json{{"mode", c.mode}, {"activations", c.activations}, {"mean", metrics_json(c.mean)}};
  json["mean"]["unchanged_everywhere"] = value_json(c.unchanged_everywhere);
  json["layers"] = Json::array();
  for (const AuditLayer& layer : c.layers) json["layers"].push_back(layer_json(layer));
  json["flips_by_margin"] = Json::array();
  for (const AuditMarginBin& bin : c.flips_by_margin) {
    json["flips_by_margin"].push_back({{"low", bin.low},
                                       {"high", bin.high},
                                       {"tokens", bin.tokens},
                                       {"flips", bin.flips},
                                       {"flip_rate", value_json(bin.flip_rate)}});
  }
  if (c.has_language()) {
    json["kld_by_position"] = Json::array();
    for (const AuditPositionBin& bin : c.kld_by_position) {
      json["kld_by_position"].push_back({{"begin", bin.begin}, {"end", bin.end}, {"kld", value_json(bin.kld)}});
    }
  }
  if (!c.by_text.empty()) {
    json["by_text"] = Json::array();
    for (const auto& [text, metrics] : c.by_text)
      json["by_text"].push_back({{"text", text}, {"mean", metrics_json(metrics)}});
  }
  return json;
}

Json model_json(const AuditModel& model) {
  return {{"path", model.path},
          {"model_type", model.model_type},
          {"quant_format", model.quant_format},
          {"file_bytes", model.file_bytes},
          {"sha256", model.sha256}};
}

Json samples_json(const AuditReport& report) {
  Json samples = Json::array();
  for (const AuditComparison& c : report.comparisons) {
    for (std::size_t s = 0; s < c.samples.size(); ++s) {
      const AuditSample& sample = c.samples[s];
      Json json{{"comparison", c.name},      {"sequence", s},
                {"text", sample.text},       {"tokens", sample.tokens},
                {"jaccard", sample.jaccard}, {"exact_set", sample.exact_set}};
      if (c.has_language()) {
        json["kld"] = sample.kld;
        json["same_top"] = sample.same_top;
        json["nll_original"] = sample.nll_original;
        json["nll_quantized"] = sample.nll_quantized;
      }
      samples.push_back(std::move(json));
    }
  }
  return samples;
}

}  // namespace

std::string audit_verdict(const AuditReport& report) {
  const AuditComparison& c = report.comparisons.front();
  const double changed = metric(c.mean, "any_changed").mean;
  std::string text = changed == 0 ? "No token-layer selection changed"
                                  : fmt::format("{} of token-layer selections changed",
                                                format_percent(changed, changed < 0.001 ? 3 : 1));
  if (!c.has_language()) return text + " when each layer is given the original's hidden states.";
  const double kld = metric(c.mean, "kld").mean, ratio = metric(c.mean, "ln_ratio").mean;
  if (kld == 0) return text + "; next-token predictions are identical.";
  const AuditValue& r = metric(c.mean, "ln_ratio");
  return fmt::format("{}; predictions moved by a KL divergence of {} and perplexity by {}{:.2f} %{}.", text,
                     format_number(kld, 2), ratio < 0 ? "−" : "+", 100 * std::fabs(std::expm1(ratio)),
                     r.low <= 0 && r.high >= 0 ? " (within error)" : "");
}

std::string audit_table(const AuditReport& report) {
  std::string out = audit_verdict(report) + "\n\n";
  out += fmt::format("{} sequences of up to {} tokens ({} tokens); ± is one standard error over sequences.\n",
                     format_count(report.sequences), format_count(report.seqlen), format_count(report.tokens));
  for (const AuditComparison& c : report.comparisons) out += "\n" + title_of(c) + "\n" + routing_table(c);
  const std::string language = language_table(report);
  if (!language.empty()) out += "\nNext-token predictions (natural log)\n" + language;
  return out;
}

std::string audit_json(const AuditReport& report) {
  Json results{{"original", model_json(report.original)},
               {"quantized", model_json(report.quantized)},
               {"texts", report.texts},
               {"seqlen", report.seqlen},
               {"sequences", report.sequences},
               {"tokens", report.tokens},
               {"tokens_dropped", report.tokens_dropped},
               {"seconds", report.seconds},
               {"verdict", audit_verdict(report)}};
  results.update(comparison_json(report.comparisons.front()));
  if (report.comparisons.size() > 1) {
    results["comparisons"] = Json::object();
    for (std::size_t i = 1; i < report.comparisons.size(); ++i)
      results["comparisons"][report.comparisons[i].name] = comparison_json(report.comparisons[i]);
  }
  Json envelope{{"schema", "kedge.audit/1"},
                {"provenance", Json::parse(report.provenance_json)},
                {"config", Json::parse(report.config_json)},
                {"results", std::move(results)},
                {"samples", samples_json(report)}};
  return envelope_text(envelope);
}

}  // namespace kedge
