#include "ptq/methods_twin/layer_tuning.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "kedge/error.h"
#include "ptq/module_error.h"

namespace kedge {
namespace {

using twin::Routing;

std::vector<std::int64_t> run_of(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), first);
  return out;
}

void add_counts(std::vector<std::int64_t>& counts, const Routing& routing) {
  const at::Tensor here =
      at::bincount(routing.expert_ids.flatten(), {}, static_cast<std::int64_t>(counts.size())).to(at::kCPU);
  const auto* first = here.const_data_ptr<std::int64_t>();
  for (std::size_t e = 0; e < counts.size(); ++e) counts[e] += first[e];
}

}  // namespace

BatchSampler::BatchSampler(std::int64_t sequences, std::int64_t batch_size, std::uint64_t seed)
    : rng_(seed), order_(run_of(0, sequences)), batch_(static_cast<std::size_t>(std::min(batch_size, sequences))) {
  KEDGE_CHECK(batch_ > 0);
  shuffle();
}

void BatchSampler::shuffle() {
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[rng_.below(i)]);
  at_ = 0;
}

std::vector<std::int64_t> BatchSampler::next() {
  if (at_ + batch_ > order_.size()) shuffle();
  const auto first = order_.begin() + static_cast<std::ptrdiff_t>(at_);
  at_ += batch_;
  return {first, first + static_cast<std::ptrdiff_t>(batch_)};
}

LayerTuning::LayerTuning(const LayerInput& input, const HiddenStates& original, const HiddenStates& quantized,
                         const twin::Options& options)
    : input_(input),
      parameters_(input.recipe.tune),
      original_(original),
      quantized_(quantized),
      options_(options),
      layer_(input.spec, input.layer, options),
      weights_(input, options) {}

bool LayerTuning::sees_same() const noexcept {
  return parameters_.routes() && parameters_.router != TuneRouter::next && layer_.is_moe();
}
bool LayerTuning::sees_next() const noexcept {
  return parameters_.routes() && parameters_.router != TuneRouter::same && next_.has_value();
}

at::Tensor LayerTuning::sequences_of(const HiddenStates& states, const std::vector<std::int64_t>& sequences) const {
  const std::int64_t rows = states.seqlen(), size = states.hidden_size();
  at::Tensor out =
      at::empty({static_cast<std::int64_t>(sequences.size()), rows, size}, at::TensorOptions().dtype(at::kFloat));
  auto* to = out.mutable_data_ptr<float>();
  for (const std::int64_t s : sequences) {
    std::memcpy(to, states.row(s * rows), static_cast<std::size_t>(rows * size) * sizeof(float));
    to += rows * size;
  }
  return out.to(at::TensorOptions().dtype(options_.dtype).device(options_.device));
}

void LayerTuning::prepare() {
  const at::NoGradGuard no_graph;
  const std::int64_t sequences = original_.sequences(), seqlen = original_.seqlen();
  if (parameters_.routes() && parameters_.router != TuneRouter::same) next_ = NextRouter::find(input_, options_);
  const twin::WeightFunction weights = weights_.original();
  if (sees_same()) {
    const RouterSpec& spec = input_.spec.moe(input_.layer).router;
    const at::Tensor bias = spec.selection_bias ? weights(selection_bias_name(input_.layer)) : at::Tensor();
    same_targets_.emplace(spec, bias, sequences, seqlen);
  }
  if (sees_next()) {
    next_targets_.emplace(input_.spec.moe(next_->layer()).router, next_->selection_bias(), sequences, seqlen);
  }
  if (layer_.is_moe()) {
    const auto experts = static_cast<std::size_t>(input_.spec.moe(input_.layer).router.num_experts);
    expert_tokens_.assign(experts, 0);
    tuned_tokens_.assign(experts, 0);
  }
  target_ = at::empty({sequences, seqlen, original_.hidden_size()}, at::TensorOptions().dtype(at::kFloat));
  const std::int64_t step = std::min(parameters_.batch_size, sequences);
  for (std::int64_t first = 0; first < sequences; first += step) {
    throw_if_interrupted();
    const std::int64_t count = std::min(step, sequences - first);
    std::vector<Routing> routing;
    const at::Tensor out = layer_.forward(sequences_of(original_, run_of(first, count)), weights, {{}, &routing});
    target_.narrow(0, first, count).copy_(out);
    for (const Routing& r : routing) add_counts(expert_tokens_, r);
    if (same_targets_) same_targets_->set(first, routing.front());
    if (next_targets_) next_targets_->set(first, next_->route(out));
  }
  make_terms();
}

void LayerTuning::make_terms() {
  const double routers = double(same_targets_.has_value()) + double(next_targets_.has_value());
  for (const WeightedTerm& term : parameters_.objective) {
    if (term.weight <= 0) continue;
    const char* name = objective_term_name(term.term);
    if (!is_routing_term(term.term)) {
      terms_.push_back({name, {}, term.weight});
      continue;
    }
    if (same_targets_) terms_.push_back({fmt::format("{} of layer {}", name, input_.layer), {}, term.weight / routers});
    if (next_targets_) {
      terms_.push_back({fmt::format("{} of layer {}", name, next_->layer()), {}, term.weight / routers});
    }
  }
}

// As layer_quantizer.cc for methods without gradients.
void LayerTuning::check_coverage() const {
  const MethodParameters& p = input_.recipe.parameters;
  if (p.expert_fallback != ExpertFallback::error) return;
  const auto starved = std::count_if(expert_tokens_.begin(), expert_tokens_.end(),
                                     [&](std::int64_t count) { return count < p.min_expert_tokens; });
  if (starved == 0) return;
  throw Error(ErrorCode::usage,
              fmt::format("{} of {} experts of layer {} see fewer than {} calibration tokens", starved,
                          expert_tokens_.size(), input_.layer, p.min_expert_tokens),
              "enough tokens for every expert",
              "calibrate on more or other text (--balance helps), or choose --expert-fallback rtn");
}

at::Tensor LayerTuning::loss(const std::vector<std::int64_t>& sequences) {
  std::vector<Routing> routing;
  const at::Tensor out = layer_.forward(sequences_of(quantized_, sequences), weights_.quantized(), {{}, &routing});
  std::vector<at::Tensor> parts;
  for (const std::int64_t s : sequences) parts.push_back(target_[s]);
  const at::Tensor target = at::stack(parts).to(out.device());
  for (const Routing& r : routing) add_counts(tuned_tokens_, r);

  std::optional<Routing> original_same, original_next, quantized_next;
  std::optional<RouterPair> same, next;
  if (same_targets_) {
    original_same = same_targets_->at(sequences, out);
    same.emplace(same_targets_->spec(), *original_same, routing.front(), same_targets_->mean_margin());
  }
  if (next_targets_) {
    original_next = next_targets_->at(sequences, out);
    quantized_next = next_->route(out);
    next.emplace(next_targets_->spec(), *original_next, *quantized_next, next_targets_->mean_margin());
  }
  std::size_t i = 0;
  for (const WeightedTerm& term : parameters_.objective) {
    if (term.weight <= 0) continue;
    if (!is_routing_term(term.term)) {
      terms_[i++].value = output_error(target, out);
      continue;
    }
    if (same) terms_[i++].value = routing_term(term.term, *same, parameters_);
    if (next) terms_[i++].value = routing_term(term.term, *next, parameters_);
  }
  KEDGE_CHECK(i == terms_.size());
  at::Tensor total;
  for (TermValue& term : terms_) {
    if (!term.value.defined()) continue;
    if (!started_) {
      term.first = term.best = term.value.item<double>();
      // A term that has nothing to say before the first step is off for this layer.
      term.scale = term.first != 0 ? term.weight / std::fabs(term.first) : 0;
    }
    if (term.scale == 0) continue;
    const at::Tensor scaled = term.value * term.scale;
    total = total.defined() ? total + scaled : scaled;
  }
  started_ = true;
  return total;
}

void LayerTuning::tune() {
  const double lr = parameters_.learning_rate();
  BatchSampler sampler(quantized_.sequences(), parameters_.batch_size, parameters_.seed);
  double best = std::numeric_limits<double>::max();
  for (std::int64_t step = 0; step < parameters_.iters; ++step) {
    throw_if_interrupted();
    weights_.refresh();
    const at::Tensor total = loss(sampler.next());
    if (!total.defined()) return;  // nothing was off at the first step: round to nearest is exact
    const double value = total.item<double>();
    if (!std::isfinite(value)) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("the loss of layer {} is not finite in step {}", input_.layer, step),
                  "finite weights and hidden states", "choose a smaller --lr or another method");
    }
    if (value < best) {
      best = value;
      best_step_ = step;
      weights_.keep();
      for (TermValue& term : terms_) {
        if (term.value.defined()) term.best = term.value.item<double>();
      }
    }
    if (step + 1 == parameters_.iters) break;
    total.backward();
    weights_.step(lr * (1.0 - double(step) / double(parameters_.iters)));
  }
}

LayerOutput LayerTuning::output() const {
  LayerOutput out;
  Json log = Json::object();
  std::int64_t untuned = 0;
  for (const PlannedModule* module : input_.modules) {
    if (!module->args) continue;
    const LinearRef& linear = module->linear;
    const std::vector<float> values = weights_.original_values(*module);
    Json& entry = log["modules"][linear.module];
    const bool starved =
        linear.expert >= 0 && parameters_.iters > 0 && tuned_tokens_[static_cast<std::size_t>(linear.expert)] == 0;
    QuantTensor quantized;
    if (starved) {
      quantized = quantize_rtn(values, linear.rows, linear.cols, *module->args, module->scale_dtype(),
                               {input_.recipe.parameters.scale_search});
      entry["calibrated_on"] = "nothing";
      ++untuned;
    } else {
      quantized = weights_.encode(*module);
    }
    if (!all_finite(quantized.scales)) {
      throw Error(ErrorCode::unsupported, "the tuned scales of " + linear.module + " are not finite",
                  "scales that the type of the file can hold", "choose --scale-dtype float32");
    }
    if (linear.expert >= 0) entry["tokens"] = expert_tokens_[static_cast<std::size_t>(linear.expert)];
    entry["error"] = to_json(module_error(values, quantized));
    out.weights.emplace(linear.canonical, std::move(quantized));
  }
  if (!expert_tokens_.empty()) {
    log["expert_tokens"] = expert_tokens_;
    const auto starved = std::count_if(expert_tokens_.begin(), expert_tokens_.end(), [&](std::int64_t count) {
      return count < input_.recipe.parameters.min_expert_tokens;
    });
    if (starved > 0) log["starved_experts"] = starved;
    if (untuned > 0) log["untuned_matrices"] = untuned;
  }
  Json& tuning = log["tuning"];
  tuning["best_step"] = best_step_;
  if (options_.device.is_cpu()) tuning["threads"] = input_.threads.size();  // libtorch's sums depend on it
  for (const TermValue& term : terms_) {
    if (term.first != 0) tuning["terms"][term.name] = {{"first", term.first}, {"best", term.best}};
  }
  out.log = log.dump();
  return out;
}

LayerOutput LayerTuning::run() {
  if (weights_.empty()) return {};
  const auto start = std::chrono::steady_clock::now();
  prepare();
  check_coverage();
  tune();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const TermValue& term : terms_) {
    if (term.name != objective_term_name(ObjectiveTerm::mse)) continue;
    note(fmt::format("layer {}: mse {:.4e} -> {:.4e} in step {}, {:.2f} s", input_.layer, term.first, term.best,
                     best_step_, seconds));
  }
  return output();
}

}  // namespace kedge
