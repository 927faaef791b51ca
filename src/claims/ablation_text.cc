#include "claims/ablation_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/text.h"

namespace kedge::ablation_text {
namespace {

bool has_interval(const AblationValue& v) { return !std::isnan(v.low) && !std::isnan(v.high); }

std::string signed_fixed(double v, int decimals) {
  const std::string digits = fmt::format("{:.{}f}", std::fabs(v), decimals);
  if (digits.find_first_not_of("0.") == std::string::npos) return digits;  // neither sign is known
  return (std::signbit(v) ? "−" : "+") + digits;
}

}  // namespace

std::string percent(const AblationValue& v, int decimals) {
  if (std::isnan(v.mean)) return "n/a";
  if (!has_interval(v)) return format_percent(v.mean, decimals);
  return fmt::format("{:.{}f} ± {:.{}f} %", 100 * v.mean, decimals, 50 * (v.high - v.low), decimals);
}

std::string number(const AblationValue& v, int digits) {
  if (std::isnan(v.mean)) return "n/a";
  if (!has_interval(v)) return format_number(v.mean, digits);
  return format_number(v.mean, digits) + " ± " + format_number((v.high - v.low) / 2, 2);
}

std::string change(const AblationValue& v) {
  if (std::isnan(v.mean)) return "n/a";
  const std::string mean = signed_fixed(100 * v.mean, 1) + " %";
  if (!has_interval(v)) return mean;
  return fmt::format("{} [{}, {}]", mean, signed_fixed(100 * v.low, 1), signed_fixed(100 * v.high, 1));
}

std::string points(const AblationValue& v) {
  if (std::isnan(v.mean)) return "n/a";
  const std::string mean = signed_fixed(100 * v.mean, 2);
  if (!has_interval(v)) return mean;
  return fmt::format("{} [{}, {}]", mean, signed_fixed(100 * v.low, 2), signed_fixed(100 * v.high, 2));
}

std::string correlation(const AblationCorrelation& c) {
  if (std::isnan(c.value)) return "n/a";
  if (std::isnan(c.low)) return format_fixed(c.value, 3);
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", c.value, c.low, c.high);
}

const char* correlation_title(const std::string& name) {
  if (name == "pearson") return "Pearson";
  if (name == "spearman") return "Spearman";
  if (name == "pearson_log") return "Pearson of logarithms";
  return "the same within layers";
}

std::string title(const AblationReport& report, const AblationTable& table) {
  return report.models[table.model].path + ", " + report.schemes[table.scheme];
}

std::string title(const AblationReport& report, const AblationMechanism& mechanism) {
  return report.models[mechanism.model].path + ", " + (mechanism.scheme.empty() ? "all schemes" : mechanism.scheme);
}

std::string legend(const AblationReport& report) {
  const bool seedless = std::any_of(report.tables.begin(), report.tables.end(), [](const AblationTable& table) {
    return std::any_of(table.methods.begin(), table.methods.end(), [](const auto& method) { return method.seedless; });
  });
  std::string text = fmt::format(
      "Means over {} seeds (each chooses other calibration sequences) with 95 % intervals (Student's t over seeds), on "
      "{} sequences, {} tokens. Changes against {} are paired by seed: exp of the mean log ratio, less one.",
      report.seeds.size(), format_count(report.sequences), format_count(report.tokens),
      report.methods[report.baseline]);
  const bool has_tasks = std::any_of(report.tables.begin(), report.tables.end(),
                                     [](const AblationTable& table) { return !table.tasks.empty(); });
  if (has_tasks) text += " Accuracies are on the same questions, differences to the original's in points.";
  if (seedless) text += " Methods without calibration data give one result for all seeds, which has no interval.";
  return text;
}

std::vector<std::string> task_header(const AblationTable& table) {
  std::vector<std::string> cells{"accuracy"};
  for (const AblationTask& task : table.tasks) {
    cells.push_back(fmt::format("{} ({})", task.name, format_count(task.samples)));
    cells.push_back("less the original's");
  }
  return cells;
}

std::vector<std::vector<std::string>> task_rows(const AblationTable& table) {
  std::vector<std::vector<std::string>> rows;
  if (table.tasks.empty()) return rows;
  rows.push_back({"original"});
  for (const AblationTask& task : table.tasks) {
    rows.back().push_back(format_percent(task.original));
    rows.back().emplace_back();
  }
  for (const AblationMethod& method : table.methods) {
    rows.push_back({method.name});
    for (std::size_t t = 0; t < method.tasks.size(); ++t) {
      rows.back().push_back(percent(method.tasks[t], 2));
      rows.back().push_back(points(method.task_changes[t]));
    }
  }
  return rows;
}

std::string mechanism_legend() {
  return "One layer quantized at a time. Each point is one run: the share of selections changed in the MoE layers "
         "after "
         "it (1 − Jaccard) and the KL divergence of the predictions. 95 % intervals: bootstrap over cells (scheme, "
         "layer, method), all seeds of a cell together. Within layers: the logarithms less their means by layer and "
         "scheme, so that a layer's place explains nothing. Both follow from the error of the layer's weights; that "
         "they go together does not say that one causes the other.";
}

}  // namespace kedge::ablation_text
