// A layer by the recipe: wave by wave through its blocks, or by a tuner; the router refit; both paths carried on.
#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "comm/sum.h"
#include "kedge/error.h"
#include "ptq/anchor/stack_quantizer.h"
#include "ptq/layers/fold.h"
#include "ptq/layers/input_groups.h"
#include "ptq/layers/layer.h"
#include "ptq/layers/layer_pass.h"
#include "ptq/layers/observer.h"
#include "ptq/layers/output_metric.h"
#include "ptq/layers/overlay_source.h"
#include "ptq/layers/router_refit.h"
#include "ptq/methods.h"
#include "ptq/module_error.h"

namespace kedge {
namespace {

class LayerQuantizer {
 public:
  LayerQuantizer(const LayerInput& input, HiddenStates& original, HiddenStates& quantized)
      : input_(input),
        method_(find_quant_method(input.recipe.method)),
        pass_(input.spec, input.layer, original.sequences(), original.seqlen(), input.options, input.threads),
        aligned_(input.source),
        aligned_input_{input.spec,    input.layer,   aligned_,   input.modules, input.recipe,
                       input.options, input.threads, input.kept, input.metric},
        overlay_(static_cast<const WeightSource&>(aligned_)),
        original_(original),
        quantized_(quantized) {
    aligned_input_.statistics_bytes = input.statistics_bytes;
    aligned_input_.ranks = input.ranks;
  }

  LayerOutput run(LayerTuner* tuner);
  void replay(const LayerOutput& done);

 private:
  bool is_moe(std::size_t block) const {
    return std::holds_alternative<Moe>(pass_.spec().blocks[block].mixer);
  }
  bool is_attention(std::size_t block) const {
    const auto& mixer = pass_.spec().blocks[block].mixer;
    return std::holds_alternative<Attention>(mixer) || std::holds_alternative<Mla>(mixer);
  }
  void take(const LayerOutput& output);
  void fold(std::size_t block);
  void quantize_block(std::size_t block);
  /// The group's matrices but those of stacks.
  void quantize_group(const InputGroup& group, const InputStatistics* inputs, const float* output_factor);
  /// As one matrix, rows one after the other: the same args, scales and inputs.
  void quantize_together(std::span<const PlannedModule* const> modules, const InputStatistics* inputs,
                         const float* output_factor);
  /// The projections of the wave whose experts share anchors. statistics: [groups of the wave], or empty.
  void quantize_stacks(const Wave& wave, const std::vector<InputStatistics>& statistics, const float* output_factor);
  void check_coverage(std::size_t block);
  void refit(std::size_t block);
  void advance(std::size_t block);
  double state_error() const;

  const LayerInput& input_;
  const QuantMethod& method_;
  LayerPass pass_;
  OverlaySource aligned_;      ///< the original with its experts' hidden units in another order, for a scheme with anchors
  LayerInput aligned_input_;   ///< what is observed and quantized: hidden units of both paths are then the same ones
  OverlaySource overlay_;
  HiddenStates& original_;
  HiddenStates& quantized_;
  LayerOutput out_;
  Json log_ = Json::object();  ///< becomes out_.log
};

void LayerQuantizer::take(const LayerOutput& output) {
  for (const auto& [module, weight] : output.weights) overlay_.set(module, weight);
  for (const auto& [name, stack] : output.stacks) overlay_.set_stack(name, stack);
  for (const auto& [name, values] : output.replaced) {
    Tensor copy(DType::f32, values.shape());
    std::copy_n(values.data<float>(), values.size(), copy.data<float>());
    overlay_.replace(name, std::move(copy));
  }
}

void LayerQuantizer::quantize_group(const InputGroup& group, const InputStatistics* inputs,
                                    const float* output_factor) {
  std::vector<const PlannedModule*> left;
  for (const PlannedModule* module : group.modules) {
    if (!module->anchor) left.push_back(module);
  }
  // Error feedback along a row knows no other row, and the factors of the Hessian are the larger part of its work.
  const bool rows_apart =
      method_.feeds_back && inputs != nullptr && inputs->residual.empty() && output_factor == nullptr;
  while (!left.empty()) {
    const PlannedModule& first = *left.front();
    const auto end = std::find_if_not(left.begin() + 1, left.end(), [&](const PlannedModule* other) {
      return rows_apart && *other->args == *first.args && other->scale_dtype() == first.scale_dtype();
    });
    quantize_together({left.begin(), end}, inputs, output_factor);
    left.erase(left.begin(), end);
  }
}

void LayerQuantizer::quantize_together(std::span<const PlannedModule* const> modules, const InputStatistics* inputs,
                                       const float* output_factor) {
  const PlannedModule& first = *modules.front();
  const std::int64_t cols = first.linear.cols;
  std::vector<float> values;
  for (const PlannedModule* module : modules) {
    const Tensor weight = overlay_.plain(module->linear.canonical, module->linear.rows, cols);
    const std::span<const float> own(weight.data<float>(), static_cast<std::size_t>(weight.size()));
    check_finite(own, module->linear.module);
    values.insert(values.end(), own.begin(), own.end());
  }
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  const ExecContext ctx = pass_.context();
  const MethodInput method_input{values,
                                 rows,
                                 cols,
                                 *first.args,
                                 first.scale_dtype(),
                                 inputs,
                                 &input_.recipe.parameters,
                                 &ctx,
                                 input_.options.isa,
                                 output_factor};
  const QuantTensor whole = method_.quantize(method_input);
  std::int64_t begin = 0;
  for (const PlannedModule* module : modules) {
    const LinearRef& linear = module->linear;
    QuantTensor quantized = rows_of(whole, begin, linear.rows);
    const std::span<const float> own(values.data() + begin * cols, static_cast<std::size_t>(linear.rows * cols));
    begin += linear.rows;
    Json& log = log_["modules"][linear.module];
    log["error"] = to_json(module_error(own, quantized));
    if (inputs != nullptr) {
      log["tokens"] = inputs->tokens;
      if (inputs->all_tokens) log["calibrated_on"] = "all tokens";
      if (inputs->tokens == 0) log["calibrated_on"] = "nothing";
    }
    overlay_.set(linear.canonical, quantized);
    out_.weights.insert_or_assign(linear.canonical, std::move(quantized));
  }
}

void LayerQuantizer::quantize_stacks(const Wave& wave, const std::vector<InputStatistics>& statistics,
                                     const float* output_factor) {
  std::map<std::string, StackJob> jobs;
  for (std::size_t g = 0; g < wave.size(); ++g) {
    for (const PlannedModule* module : wave[g].modules) {
      if (!module->anchor) continue;
      StackJob& job = jobs[stack_name(module->linear)];
      job.modules.push_back(module);
      if (!statistics.empty()) job.statistics.push_back(&statistics[g]);
      if (wave[g].writes_residual) job.output_factor = output_factor;
    }
  }
  const ExecContext ctx = pass_.context();
  for (const auto& [name, job] : jobs) quantize_stack(aligned_input_, ctx, job, overlay_, out_, log_);
}

// Experts that calibration did not reach, before any of them is quantized.
void LayerQuantizer::check_coverage(std::size_t block) {
  const Observation observation{aligned_input_, pass_, overlay_, block, original_, quantized_, false};
  const std::vector<std::int64_t> counts = count_expert_tokens(observation);
  log_["expert_tokens"] = counts;
  std::int64_t starved = 0;
  for (const std::int64_t count : counts) starved += count < input_.recipe.parameters.min_expert_tokens;
  if (starved == 0) return;
  log_["starved_experts"] = starved;
  if (input_.recipe.parameters.expert_fallback != ExpertFallback::error) return;
  throw Error(ErrorCode::usage,
              fmt::format("{} of {} experts of layer {} see fewer than {} calibration tokens", starved, counts.size(),
                          input_.layer, input_.recipe.parameters.min_expert_tokens),
              "enough tokens for every expert",
              "calibrate on more or other text (--balance helps), or choose --expert-fallback all-tokens or rtn");
}

void LayerQuantizer::fold(std::size_t block) {
  for (const FoldReport& site : method_.fold({input_, pass_, overlay_, block, original_, quantized_, out_})) {
    log_["folds"][site.producer] = {{"alpha", site.alpha}, {"error", site.error}};
  }
}

void LayerQuantizer::quantize_block(std::size_t block) {
  const bool needs_data = method_.needs != MethodNeeds::nothing;
  if (is_moe(block) && input_.recipe.scheme.anchor) align_layer(aligned_input_, pass_.context(), aligned_, log_);
  if (needs_data && is_moe(block)) check_coverage(block);
  std::vector<float> factor;
  if (input_.metric != nullptr) {
    factor = input_.metric->factor(pass_.context(), input_.options.isa, input_.layer, !is_attention(block));
  }
  std::vector<Wave> waves;
  for (Wave& wave : input_waves(input_.modules, is_attention(block))) {
    for (Wave& part : parts_of(std::move(wave), input_.statistics_bytes, method_.asymmetric, method_.shaped)) {
      waves.push_back(std::move(part));
    }
  }
  for (const Wave& wave : waves) {
    throw_if_interrupted();
    std::vector<InputStatistics> statistics;
    if (needs_data) {
      const Observation observation{aligned_input_, pass_,      overlay_,           block,
                                    original_,      quantized_, method_.asymmetric, method_.shaped};
      statistics = observe(observation, wave);
    }
    const float* outputs = factor.empty() ? nullptr : factor.data();
    quantize_stacks(wave, statistics, outputs);
    for (std::size_t g = 0; g < wave.size(); ++g) {
      quantize_group(wave[g], needs_data ? &statistics[g] : nullptr, wave[g].writes_residual ? outputs : nullptr);
      if (needs_data) statistics[g] = {};  // as large as the weights themselves
    }
  }
}

void LayerQuantizer::refit(std::size_t block) {
  const RefitReport report = refit_router(input_, pass_, overlay_, block, original_, quantized_);
  log_["router_refit"] = {{"agreement_before", report.agreement_before},
                              {"agreement_after", report.agreement_after},
                              {"logit_error_before", report.error_before},
                              {"logit_error_after", report.error_after}};
  for (const PlannedModule* module : input_.modules) {
    if (module->linear.role != LinearRole::router) continue;
    out_.replaced.insert_or_assign(module->linear.canonical + ".weight",
                                   overlay_.plain(module->linear.canonical, module->linear.rows, module->linear.cols));
  }
}

void LayerQuantizer::advance(std::size_t block) {
  pass_.advance(*pass_.build(input_.source, block), original_);
  pass_.advance(*pass_.build(overlay_, block), quantized_);
}

double LayerQuantizer::state_error() const {
  double squares = 0, energy = 0;
  const std::int64_t count = original_.rows() * original_.hidden_size();
  const float *a = original_.row(0), *b = quantized_.row(0);
  for (std::int64_t i = 0; i < count; ++i) {
    squares += (double(b[i]) - double(a[i])) * (double(b[i]) - double(a[i]));
    energy += double(a[i]) * double(a[i]);
  }
  squares = sum_over_ranks(input_.ranks, squares);
  energy = sum_over_ranks(input_.ranks, energy);
  return energy > 0 ? std::sqrt(squares / energy) : 0;
}

LayerOutput LayerQuantizer::run(LayerTuner* tuner) {
  if (tuner != nullptr) {
    out_ = tuner->tune(input_, original_, quantized_);
    take(out_);
    log_ = parse_json(out_.log, "a tuner's log");
  }
  for (std::size_t block = 0; block < pass_.num_blocks(); ++block) {
    if (tuner == nullptr && method_.fold != nullptr) fold(block);
    if (is_moe(block) && input_.recipe.refit.enabled) refit(block);
    if (tuner == nullptr) quantize_block(block);
    advance(block);
  }
  log_["state_error"] = state_error();
  out_.log = log_.dump();
  return std::move(out_);
}

void LayerQuantizer::replay(const LayerOutput& done) {
  take(done);
  for (std::size_t block = 0; block < pass_.num_blocks(); ++block) advance(block);
}

}  // namespace

LayerOutput quantize_layer(const LayerInput& input, HiddenStates& original, HiddenStates& quantized,
                           LayerTuner* tuner) {
  return LayerQuantizer(input, original, quantized).run(tuner);
}

void replay_layer(const LayerInput& input, const LayerOutput& done, HiddenStates& original, HiddenStates& quantized) {
  LayerQuantizer(input, original, quantized).replay(done);
}

}  // namespace kedge
