#include "ptq/summary.h"

#include <map>
#include <string>
#include <tuple>
#include <utility>

namespace kedge {
void summarize(const QuantPlan& plan, const std::vector<ModuleError>& errors, QuantizeReport& report) {
  std::map<std::tuple<int, bool, std::string>, std::pair<QuantizeGroup, ModuleError>> groups;
  std::uint64_t quantized_bytes = 0;
  std::int64_t quantized_weights = 0;
  for (std::size_t i = 0; i < plan.modules.size(); ++i) {
    const PlannedModule& module = plan.modules[i];
    auto& [group, sum] = groups[{static_cast<int>(module.linear.role), !module.args, module.scheme()}];
    const std::int64_t weights = module.linear.rows * module.linear.cols;
    group.role = linear_role_name(module.linear.role);
    group.scheme = module.scheme();
    ++group.modules;
    group.weights += weights;
    group.source_bytes += module.source_bytes;
    group.output_bytes += module.output_bytes;
    report.channel_fallbacks += module.channel_fallback ? 1 : 0;
    if (!module.args) continue;
    quantized_bytes += module.output_bytes;
    quantized_weights += weights;
    if (errors.empty()) continue;
    sum.squared_error += errors[i].squared_error;
    sum.squared_weight += errors[i].squared_weight;
  }
  for (auto& [key, value] : groups) {
    const bool is_quantized = !std::get<1>(key);
    if (is_quantized && !errors.empty()) value.first.relative_rms_error = value.second.relative_rms();
    report.groups.push_back(std::move(value.first));
  }
  QuantizeGroup other{"other", "none"};
  for (const TensorInfo& tensor : plan.copies) {
    ++other.modules;
    other.weights += num_elements(tensor.shape);
    other.source_bytes += tensor.end - tensor.begin;
    other.output_bytes += tensor.end - tensor.begin;
  }
  if (other.modules > 0) report.groups.push_back(std::move(other));
  for (const QuantizeGroup& group : report.groups) {
    report.weights += group.weights;
    report.source_bytes += group.source_bytes;
    report.output_bytes += group.output_bytes;
  }
  if (report.weights > 0) report.bits_per_weight = 8.0 * double(report.output_bytes) / double(report.weights);
  if (quantized_weights > 0)
    report.quantized_bits_per_weight = 8.0 * double(quantized_bytes) / double(quantized_weights);
}

}  // namespace kedge
