#include "claims/ablation_summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "stats/correlation.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

AblationValue to_value(const Interval& interval) {
  const bool bounded = !std::isnan(interval.standard_error);
  return {interval.mean, bounded ? interval.low : kNaN, bounded ? interval.high : kNaN, interval.n};
}

/// Runs of one model, scheme, method and layer, in the order of the seeds.
using Cell = std::vector<const AblationRun*>;

template <class F>
AblationValue mean_over(const Cell& runs, F&& value_of) {
  std::vector<double> values;
  for (const AblationRun* run : runs) {
    const double value = value_of(*run);
    if (!std::isnan(value)) values.push_back(value);
  }
  return to_value(mean_interval(values));
}

const AblationRun* run_of_seed(const Cell& runs, std::uint64_t seed) {
  for (const AblationRun* run : runs) {
    if (run->seedless || run->seed == seed) return run;
  }
  return nullptr;
}

AblationValue compare(const Cell& runs, const Cell& base, const std::vector<std::uint64_t>& seeds,
                      double AblationRun::* field) {
  if (runs.empty() || base.empty()) return {kNaN, kNaN, kNaN, 0};
  std::vector<double> x, b;
  const bool once = runs.front()->seedless && base.front()->seedless;
  for (const std::uint64_t seed : seeds) {
    const AblationRun *run = run_of_seed(runs, seed), *other = run_of_seed(base, seed);
    if (run == nullptr || other == nullptr) continue;
    x.push_back(run->*field);
    b.push_back(other->*field);
    if (once) break;  // the same pair for every seed
  }
  return paired_relative_change(x, b);
}

AblationMethod summarize_method(const AblationReport& report, std::size_t index, const Cell& runs, const Cell& base) {
  AblationMethod method;
  method.name = report.methods[index];
  method.baseline = index == report.baseline;
  method.seedless = !runs.empty() && runs.front()->seedless;
  constexpr std::pair<const char*, double AblationRun::*> kFigures[] = {
      {"one_minus_jaccard", &AblationRun::one_minus_jaccard},
      {"exact_set", &AblationRun::exact_set},
      {"kld", &AblationRun::kld},
      {"ln_ratio", &AblationRun::ln_ratio},
      {"seconds", &AblationRun::seconds},
      {"bits_per_weight", &AblationRun::bits_per_weight}};
  for (const auto& [name, field] : kFigures) {
    method.figures.emplace_back(name, mean_over(runs, [&](const AblationRun& run) { return run.*field; }));
  }
  method.changed_ratio = compare(runs, base, report.seeds, &AblationRun::one_minus_jaccard);
  method.kld_ratio = compare(runs, base, report.seeds, &AblationRun::kld);
  const std::size_t layers = runs.empty() ? 0 : runs.front()->layers.size();
  for (std::size_t l = 0; l < layers; ++l) {
    method.layers.push_back(mean_over(runs, [&](const AblationRun& run) { return run.layers[l]; }));
  }
  const std::size_t tasks = runs.empty() ? 0 : runs.front()->tasks.size();
  for (std::size_t t = 0; t < tasks; ++t) {
    const auto share = [t](const AblationRun& run) { return run.tasks[t].quantized; };
    const auto change = [t](const AblationRun& run) { return run.tasks[t].quantized - run.tasks[t].original; };
    method.tasks.push_back(mean_over(runs, share));
    method.task_changes.push_back(mean_over(runs, change));
  }
  return method;
}

void add_tables(AblationReport& report) {
  for (std::size_t m = 0; m < report.models.size(); ++m) {
    for (std::size_t s = 0; s < report.schemes.size(); ++s) {
      std::vector<Cell> cells(report.methods.size());
      for (const AblationRun& run : report.runs) {
        if (run.model == m && run.scheme == s && run.layer < 0) cells[run.method].push_back(&run);
      }
      if (std::all_of(cells.begin(), cells.end(), [](const Cell& cell) { return cell.empty(); })) continue;
      AblationTable table{m, s, {}, {}};
      for (std::size_t k = 0; k < cells.size(); ++k) {
        table.methods.push_back(summarize_method(report, k, cells[k], cells[report.baseline]));
      }
      for (const Cell& cell : cells) {
        if (table.tasks.empty() && !cell.empty()) table.tasks = cell.front()->tasks;
      }
      report.tables.push_back(std::move(table));
    }
  }
}

struct Points {
  std::vector<double> x, y;
  std::vector<int> clusters, layers;  ///< the cell; scheme and layer
};

AblationCorrelation correlate(const char* name, CorrelationFunction f, const Points& points) {
  const Correlation c = bootstrap_correlation(f, points.x, points.y, points.clusters);
  return {name, c.value, c.low, c.high};
}

// Logarithms; points without one (a layer that changes no selection) are left out.
Points logarithms(const Points& points) {
  Points out;
  for (std::size_t i = 0; i < points.x.size(); ++i) {
    if (points.x[i] <= 0 || points.y[i] <= 0) continue;
    out.x.push_back(std::log(points.x[i]));
    out.y.push_back(std::log(points.y[i]));
    out.clusters.push_back(points.clusters[i]);
    out.layers.push_back(points.layers[i]);
  }
  return out;
}

// Without what a layer's place explains: deviations from the mean of the points of that layer and scheme.
Points within_layers(Points points) {
  std::map<int, std::tuple<double, double, double>> sums;
  for (std::size_t i = 0; i < points.x.size(); ++i) {
    auto& [x, y, n] = sums[points.layers[i]];
    x += points.x[i], y += points.y[i], n += 1;
  }
  for (std::size_t i = 0; i < points.x.size(); ++i) {
    const auto& [x, y, n] = sums[points.layers[i]];
    points.x[i] -= x / n;
    points.y[i] -= y / n;
  }
  return points;
}

AblationMechanism mechanism_of(const AblationReport& report, std::size_t model, int scheme) {
  AblationMechanism out;
  out.model = model;
  if (scheme >= 0) out.scheme = report.schemes[static_cast<std::size_t>(scheme)];
  Points points;
  std::map<std::tuple<std::size_t, int, std::size_t>, int> cells;
  std::map<std::pair<std::size_t, int>, int> layers;
  for (const AblationRun& run : report.runs) {
    if (run.model != model || run.layer < 0 || std::isnan(run.changed_after)) continue;
    if (scheme >= 0 && run.scheme != static_cast<std::size_t>(scheme)) continue;
    points.x.push_back(run.changed_after);
    points.y.push_back(run.kld);
    points.clusters.push_back(
        cells.emplace(std::tuple(run.scheme, run.layer, run.method), static_cast<int>(cells.size())).first->second);
    points.layers.push_back(
        layers.emplace(std::pair(run.scheme, run.layer), static_cast<int>(layers.size())).first->second);
  }
  out.points = static_cast<std::int64_t>(points.x.size());
  out.cells = static_cast<std::int64_t>(cells.size());
  const Points logs = logarithms(points);
  out.correlations = {correlate("pearson", pearson, points), correlate("spearman", spearman, points),
                      correlate("pearson_log", pearson, logs),
                      correlate("pearson_log_within_layers", pearson, within_layers(logs))};
  return out;
}

void add_mechanisms(AblationReport& report) {
  for (std::size_t m = 0; m < report.models.size(); ++m) {
    const auto has = [&](int scheme) {
      return std::any_of(report.runs.begin(), report.runs.end(), [&](const AblationRun& run) {
        return run.model == m && run.layer >= 0 && (scheme < 0 || run.scheme == static_cast<std::size_t>(scheme));
      });
    };
    for (int s = 0; s < static_cast<int>(report.schemes.size()); ++s) {
      if (has(s)) report.mechanisms.push_back(mechanism_of(report, m, s));
    }
    if (report.schemes.size() > 1 && has(-1)) report.mechanisms.push_back(mechanism_of(report, m, -1));
  }
}

}  // namespace

const AblationValue& figure(const AblationMethod& method, std::string_view name) {
  const auto at = std::find_if(method.figures.begin(), method.figures.end(),
                               [&](const auto& figure) { return figure.first == name; });
  KEDGE_CHECK(at != method.figures.end());
  return at->second;
}

AblationValue paired_relative_change(std::span<const double> x, std::span<const double> base) {
  KEDGE_CHECK(x.size() == base.size());
  std::vector<double> logs;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!(x[i] > 0) || !(base[i] > 0)) return {kNaN, kNaN, kNaN, static_cast<std::int64_t>(x.size())};
    logs.push_back(std::log(x[i] / base[i]));
  }
  const AblationValue value = to_value(mean_interval(logs));
  return {std::expm1(value.mean), std::expm1(value.low), std::expm1(value.high), value.n};
}

void summarize_ablation(AblationReport& report) {
  report.tables.clear();
  report.mechanisms.clear();
  add_tables(report);
  add_mechanisms(report);
}

}  // namespace kedge
