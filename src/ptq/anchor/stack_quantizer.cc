#include "ptq/anchor/stack_quantizer.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/json.h"
#include "ptq/anchor/align.h"
#include "ptq/anchor/fit.h"
#include "ptq/methods.h"
#include "ptq/module_error.h"

namespace kedge {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Json module_log(const InputStatistics* inputs, const ModuleError& error) {
  Json log = {{"error", to_json(error)}};
  if (inputs == nullptr) return log;
  log["tokens"] = inputs->tokens;
  if (inputs->all_tokens) log["calibrated_on"] = "all tokens";
  if (inputs->tokens == 0) log["calibrated_on"] = "nothing";
  return log;
}

/// Mean squares of the inputs [E, K]; an expert without tokens has the mean of the others'.
std::vector<float> importance_of(const StackJob& job, std::int64_t cols) {
  if (job.statistics.empty()) return {};
  const auto experts = static_cast<std::int64_t>(job.statistics.size());
  std::vector<float> out(at(experts * cols), 0);
  std::vector<double> sum(at(cols), 0);
  std::int64_t seen = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const InputStatistics& s = *job.statistics[at(e)];
    if (s.tokens == 0) continue;
    ++seen;
    for (std::int64_t k = 0; k < cols; ++k) {
      const double square = double(s.gram[at(k * cols + k)]) / double(s.tokens);
      out[at(e * cols + k)] = static_cast<float>(square);
      sum[at(k)] += square;
    }
  }
  if (seen == 0) return {};
  for (std::int64_t e = 0; e < experts; ++e) {
    if (job.statistics[at(e)]->tokens != 0) continue;
    for (std::int64_t k = 0; k < cols; ++k) out[at(e * cols + k)] = static_cast<float>(sum[at(k)] / double(seen));
  }
  return out;
}

ScaleMethod search_of(const Recipe& recipe) {
  return recipe.method == "rtn-mse" ? ScaleMethod::mse : recipe.parameters.scale_search;
}

}  // namespace

void align_layer(const LayerInput& input, const ExecContext& ctx, OverlaySource& aligned, Json& log) {
  ExpertShape shape;
  std::int64_t on_anchors = 0;
  std::string prefix;
  for (const PlannedModule* module : input.modules) {
    if (module->linear.role != LinearRole::expert) continue;
    shape.experts = std::max<std::int64_t>(shape.experts, module->linear.expert + 1);
    on_anchors += module->anchor ? 1 : 0;
    if (!module->linear.canonical.ends_with(".up_proj")) continue;
    shape.intermediate_size = module->linear.rows;
    shape.hidden_size = module->linear.cols;
    const std::string stack = stack_name(module->linear);
    prefix = stack.substr(0, stack.rfind('.'));
  }
  if (shape.experts == 0 || on_anchors != 3 * shape.experts) return;
  const Alignment alignment = align_experts(ctx, input.options.isa, aligned, prefix, shape);
  log["alignment"] = {{"shared_before", alignment.shared_before}, {"shared_after", alignment.shared_after}};
  if (alignment.shared_after == alignment.shared_before) return;
  for (const PlannedModule* module : input.modules) {
    const LinearRef& linear = module->linear;
    if (linear.role != LinearRole::expert) continue;
    const Tensor weight = aligned.plain(linear.canonical, linear.rows, linear.cols);
    const std::vector<std::int32_t>& order = alignment.order[at(linear.expert)];
    aligned.replace(linear.canonical + ".weight", linear.canonical.ends_with(".down_proj")
                                                      ? reorder_columns(weight, order)
                                                      : reorder_rows(weight, order));
  }
}

void quantize_stack(const LayerInput& input, const ExecContext& ctx, const StackJob& job, OverlaySource& overlay,
                    LayerOutput& out, Json& log) {
  const PlannedModule& first = *job.modules.front();
  const std::int64_t experts = static_cast<std::int64_t>(job.modules.size());
  const std::int64_t rows = first.linear.rows, cols = first.linear.cols;
  const std::string name = stack_name(first.linear);
  std::vector<float> weights(at(experts * rows * cols));
  for (std::int64_t e = 0; e < experts; ++e) {
    const LinearRef& linear = job.modules[at(e)]->linear;
    KEDGE_CHECK(linear.expert == e);
    const Tensor one = overlay.plain(linear.canonical, rows, cols);
    std::copy_n(one.data<float>(), one.size(), weights.data() + e * rows * cols);
    check_finite({one.data<float>(), at(one.size())}, linear.module);
  }
  const std::vector<float> importance = importance_of(job, cols);
  const QuantMethod& method = find_quant_method(input.recipe.method);
  const auto round = [&](std::int64_t e, std::span<const float> delta, std::span<const float> anchor) {
    MethodInput in{delta, rows, cols, *first.args, DType::f16};
    in.inputs = job.statistics.empty() ? nullptr : job.statistics[at(e)];
    in.parameters = &input.recipe.parameters;
    in.ctx = &ctx;
    in.isa = input.options.isa;
    in.output_factor = job.output_factor;
    in.anchor = anchor;
    return method.quantize(in);
  };
  const AnchorDeltaArgs args{first.anchor->dtype, first.args->num_bits, first.args->group_size, first.anchor->manifold};
  FittedAnchor fitted = fit_anchor({weights, experts, rows, cols, args, importance, search_of(input.recipe), round,
                                    method.needs == MethodNeeds::nothing},
                                   ctx.threads, name);
  log["anchors"][name.substr(name.rfind('.') + 1)] = {{"steps", fitted.steps}, {"shared", fitted.shared}};
  std::vector<float> decoded(at(rows * cols));
  for (std::int64_t e = 0; e < experts; ++e) {
    decode(fitted.stack, e, decoded);
    const std::span<const float> original = std::span(weights).subspan(at(e * rows * cols), at(rows * cols));
    log["modules"][job.modules[at(e)]->linear.module] =
        module_log(job.statistics.empty() ? nullptr : job.statistics[at(e)], module_error(original, decoded));
  }
  auto stack = std::make_shared<const AnchorDelta>(std::move(fitted.stack));
  overlay.set_stack(name, stack);
  out.stacks.insert_or_assign(name, std::move(stack));
}

}  // namespace kedge
