#include "ptq/allocation.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "base/log.h"
#include "kedge/error.h"
#include "ptq/knapsack.h"
#include "ptq/sensitivity.h"

namespace kedge {
namespace {

std::int64_t stored_bits(const PlannedModule& module, const QuantArgs& args) {
  const std::int64_t rows = module.linear.rows, cols = module.linear.cols;
  return std::llround(bits_per_weight(args, rows, cols, dtype_bits(module.scale_dtype())) * double(rows * cols));
}

QuantArgs with_width(const PlannedModule& module, std::size_t width) {
  QuantArgs args = *module.args;
  args.num_bits = kMixedWidths[width];
  return args;
}

// Which item of the knapsack a unit belongs to: its own, or the one of all experts.
std::vector<std::size_t> item_of_unit(const SensitivityReport& report, BitsPer per) {
  std::vector<std::size_t> out;
  std::optional<std::size_t> experts;
  std::size_t items = 0;
  for (const SensitivityUnit& unit : report.units) {
    const bool shared = per == BitsPer::model && unit.role == LinearRole::expert;
    out.push_back(shared && experts ? *experts : items++);
    if (shared) experts = out.back();
  }
  return out;
}

std::vector<KnapsackItem> items_of(const SensitivityReport& report, const std::vector<std::size_t>& item_of,
                                   Sensitivity by) {
  const auto loss = losses(report, by);
  std::vector<KnapsackItem> items;
  for (std::size_t u = 0; u < report.units.size(); ++u) {
    if (item_of[u] == items.size()) {
      items.push_back(
          {std::vector<std::int64_t>(std::size(kMixedWidths)), std::vector<double>(std::size(kMixedWidths))});
    }
    KnapsackItem& item = items[item_of[u]];
    for (std::size_t width = 0; width < std::size(kMixedWidths); ++width) {
      item.losses[width] += loss[u][width];
      for (const PlannedModule* module : report.units[u].modules) {
        item.costs[width] += stored_bits(*module, with_width(*module, width));
      }
    }
  }
  return items;
}

struct Sizes {
  std::int64_t weights = 0;  ///< of all quantized matrices
  std::int64_t fixed = 0;    ///< bits of those that overrides decide
};

Sizes sizes_of(const QuantPlan& plan, const SensitivityReport& report) {
  Sizes sizes;
  for (const PlannedModule& module : plan.modules) {
    if (!module.args) continue;
    sizes.weights += module.linear.rows * module.linear.cols;
    sizes.fixed += stored_bits(module, *module.args);
  }
  for (const SensitivityUnit& unit : report.units) {
    for (const PlannedModule* module : unit.modules) sizes.fixed -= stored_bits(*module, *module->args);
  }
  return sizes;
}

std::vector<QuantizeAllocation> rows_of(const SensitivityReport& report, const std::vector<std::size_t>& choices) {
  std::map<std::tuple<int, std::size_t, LinearRole>, QuantizeAllocation> rows;
  for (std::size_t u = 0; u < choices.size(); ++u) {
    const SensitivityUnit& unit = report.units[u];
    const BlockSensitivity& block = report.blocks[unit.block];
    QuantizeAllocation& row = rows[{unit.layer, unit.block, unit.role}];
    row.layer = unit.layer;
    row.role = linear_role_name(unit.role);
    row.kld = block.kld;
    row.routing = std::sqrt(block.routing);
    row.error += unit.error[1];
    std::int64_t count = 1;
    if (unit.role == LinearRole::expert && unit.expert < 0) {
      std::set<int> experts;
      for (const PlannedModule* module : unit.modules) experts.insert(module->linear.expert);
      count = static_cast<std::int64_t>(experts.size());
    }
    row.units[kMixedWidths[choices[u]]] += count;
  }
  std::vector<QuantizeAllocation> out;
  for (auto& [key, row] : rows) out.push_back(std::move(row));
  return out;
}

void warn_of_mixed_experts(const std::vector<QuantizeAllocation>& rows) {
  std::set<int> widths;
  bool within_layer = false;
  for (const QuantizeAllocation& row : rows) {
    if (row.role != linear_role_name(LinearRole::expert)) continue;
    for (const auto& [bits, count] : row.units) widths.insert(bits);
    within_layer |= row.units.size() > 1;
  }
  if (within_layer) {
    warn(
        "experts of one layer get different bits: kedge reads that; vLLM and transformers take one scheme for fused "
        "experts (--bits-per layer or model)");
  } else if (widths.size() > 1) {
    warn(
        "experts get different bits in different layers: kedge reads that; transformers 5 takes one scheme for the "
        "experts of all layers and would read wrong weights (--bits-per model)");
  }
}

}  // namespace

Allocation allocate_bits(const Checkpoint& checkpoint, const Recipe& recipe, const CalibrationData& data,
                         const std::filesystem::path& cache_dir, ThreadPool& threads) {
  const QuantPlan plan = plan_quantization(checkpoint, recipe, UINT64_MAX);
  const SensitivityReport report = measure_sensitivity({checkpoint, recipe, plan, data, cache_dir, threads});
  const std::vector<std::size_t> item_of = item_of_unit(report, recipe.mixed.per);
  const std::vector<KnapsackItem> items = items_of(report, item_of, recipe.mixed.sensitivity);
  const Sizes sizes = sizes_of(plan, report);
  const auto budget =
      static_cast<std::int64_t>(std::floor(recipe.mixed.target_bits * double(sizes.weights))) - sizes.fixed;
  std::int64_t least = 0;
  for (const KnapsackItem& item : items) least += item.costs.front();
  if (least > budget) {
    throw Error(ErrorCode::usage,
                fmt::format("{} bits per weight are fewer than the narrowest width and the overrides take",
                            recipe.mixed.target_bits),
                fmt::format("at least {:.4f}", double(least + sizes.fixed) / double(sizes.weights)));
  }
  const KnapsackChoice found = solve_knapsack(items, budget);
  std::vector<std::size_t> choices;
  for (const std::size_t item : item_of) choices.push_back(found.choices[item]);
  Allocation allocation;
  std::int64_t bits = sizes.fixed;
  for (std::size_t i = 0; i < items.size(); ++i) bits += items[i].costs[found.choices[i]];
  for (std::size_t u = 0; u < choices.size(); ++u) {
    for (const PlannedModule* module : report.units[u].modules) {
      allocation.args[module->linear.module] = with_width(*module, choices[u]);
    }
  }
  allocation.bits_per_weight = double(bits) / double(sizes.weights);
  allocation.rows = rows_of(report, choices);
  warn_of_mixed_experts(allocation.rows);
  return allocation;
}

}  // namespace kedge
