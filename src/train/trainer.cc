#include "train/trainer.h"

#include <cmath>
#include <limits>

#include <ATen/Context.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>

#include "kedge/error.h"
#include "train/masking.h"
#include "train/ranks.h"
#include "train/router_losses.h"

namespace kedge::training {
namespace {

// Where masks of validation rows come from: beyond all that training draws.
constexpr std::int64_t kValidationRows = std::int64_t{1} << 62;
// torch's clip_grad_norm_ adds this to the norm it divides by.
constexpr double kClipEps = 1e-6;

twin::Options model_options(twin::Options options) {
  options.dtype = at::kFloat;
  options.stacked_experts = true;
  return options;
}

/// logits [B, T, V], ids [B, T] -> mean -ln p of each row's tokens but the first.
at::Tensor next_token_loss(const at::Tensor& logits, const at::Tensor& ids) {
  const std::int64_t count = ids.size(1) - 1;
  const at::Tensor targets = ids.narrow(1, 1, count).flatten().to(logits.device());
  return at::cross_entropy_loss(logits.narrow(1, 0, count).flatten(0, 1), targets);
}

double value_or_nan(const at::Tensor& scalar) {
  return scalar.defined() ? scalar.item<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::vector<std::int64_t> to_vector(const at::Tensor& counts) {
  const at::Tensor host = counts.to(at::kCPU);
  const auto* first = host.const_data_ptr<std::int64_t>();
  return {first, first + host.numel()};
}

double mean_over_ranks(Communicator& ranks, double value) { return sum_over_ranks(ranks, value) / ranks.size(); }

bool all_finite(const at::Tensor& x) { return at::isfinite(x).all().item<bool>(); }

}  // namespace

Trainer::Trainer(const ModelSpec& spec, const twin::Parameters& first, const TrainerSettings& settings,
                 const twin::Options& options, Communicator* ranks)
    : settings_(settings),
      alone_(ranks == nullptr ? single_rank() : nullptr),
      ranks_(ranks == nullptr ? *alone_ : *ranks),
      weights_(spec, first, settings.muon, options.device),
      manifolds_(spec, weights_),
      optimizer_(weights_, settings.optimizer),
      model_(spec, weights_.parameters(), model_options(options)),
      stacks_(anchored_stacks(spec)) {
  rounds_ = settings.round_from > 0 && settings.resumed_from >= settings.round_from;
}

twin::WeightFunction Trainer::current_weights() const {
  return rounds_ ? rounded_weights(model_.parameters(), stacks_) : model_.weights();
}

StepResult Trainer::step(const at::Tensor& ids, double lr, std::int64_t step) {
  weights_.clear_gradients();
  rounds_ = settings_.round_from > 0 && step >= settings_.round_from;
  const Pass pass = forward(ids, ((step - 1) * ranks_.size() + ranks_.rank()) * ids.size(0));
  const twin::Output& output = pass.output;
  const std::vector<at::Tensor> counts = expert_counts(spec(), output.routing);
  for (const at::Tensor& of_layer : counts) sum_over_ranks(ranks_, of_layer);  // the balance loss is of the whole step
  const RouterLosses router = router_losses(spec(), output.routing, counts);
  const at::Tensor& loss = pass.loss;
  at::Tensor total = loss;
  if (router.balance.defined()) total = total + router.balance * settings_.balance_loss;
  if (router.z.defined()) total = total + router.z * settings_.z_loss;
  if (router.reconstruction.defined()) total = total + router.reconstruction * settings_.reconstruction_loss;
  total.backward();

  StepResult result;
  result.loss = mean_over_ranks(ranks_, loss.item<double>());
  result.balance_loss = mean_over_ranks(ranks_, value_or_nan(router.balance));
  result.z_loss = mean_over_ranks(ranks_, value_or_nan(router.z));
  result.reconstruction_loss = mean_over_ranks(ranks_, value_or_nan(router.reconstruction));
  const double all = mean_over_ranks(ranks_, total.item<double>());
  average_gradients();
  manifolds_.begin_step();
  result.gradient_norm = gradient_norm();
  if (!std::isfinite(all) || !std::isfinite(result.gradient_norm)) {
    refuse_not_finite(ids, result.loss, step);
  }
  const double norm = result.gradient_norm + kClipEps;
  const double scale = settings_.clip > 0 && norm > settings_.clip ? norm / settings_.clip : 1;
  optimizer_.step(lr, step, scale);
  manifolds_.end_step();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const at::Tensor bias = weights_.selection_bias(output.routing[i].layer);
    if (bias.defined()) update_selection_bias(bias, counts[i], settings_.bias_update_speed);
    result.load.push_back(to_vector(counts[i]));
  }
  return result;
}

Trainer::Pass Trainer::forward(const at::Tensor& ids, std::int64_t first_row) {
  if (!spec().is_masked_diffusion()) {
    twin::Output output = model_.forward(ids, current_weights());
    at::Tensor loss = next_token_loss(output.logits, ids);
    return {std::move(output), std::move(loss)};
  }
  const MaskedBatch masked = mask_tokens(ids, spec().mask_token_id, settings_.mask_seed, first_row);
  twin::Output output = model_.forward(masked.inputs, current_weights());
  at::Tensor loss = masked_loss(output.logits, ids, masked.weights) / ids.size(0);
  return {std::move(output), std::move(loss)};
}

void Trainer::evaluate(const at::Tensor& ids, Evaluation& result) {
  const at::NoGradGuard no_gradients;
  const std::int64_t predicted = ids.size(0) * (spec().is_masked_diffusion() ? ids.size(1) : ids.size(1) - 1);
  const Pass pass = forward(ids, kValidationRows + result.tokens / ids.size(1));
  result.nll += pass.loss.item<double>() * static_cast<double>(predicted);
  result.tokens += predicted;
  const std::vector<at::Tensor> counts = expert_counts(spec(), pass.output.routing);
  result.load.resize(counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::vector<std::int64_t> here = to_vector(counts[i]);
    result.load[i].resize(here.size());
    for (std::size_t e = 0; e < here.size(); ++e) result.load[i][e] += here[e];
  }
}

void Trainer::average_gradients() {
  if (ranks_.size() == 1) return;
  for (const UpdateRule rule : kUpdateRules) {
    const at::Tensor& gradient = weights_.group(rule).gradient;
    if (!gradient.defined()) continue;
    sum_over_ranks(ranks_, gradient);
    gradient.div_(ranks_.size());
  }
}

double Trainer::gradient_norm() {
  double sum = 0;
  for (const UpdateRule rule : kUpdateRules) {
    const at::Tensor& gradient = weights_.group(rule).gradient;
    if (gradient.defined()) sum += std::pow(at::linalg_vector_norm(gradient).item<double>(), 2);
  }
  return std::sqrt(sum);
}

void Trainer::refuse_not_finite(const at::Tensor& ids, double loss, std::int64_t step) {
  const at::NoGradGuard no_gradients;
  const twin::WeightFunction weights = current_weights();
  std::string where;
  for (const TrainedWeight& weight : weights_.trained()) {
    if (where.empty() && !all_finite(weight.value)) where = "the weight " + weight.name;
  }
  at::Tensor h = model_.embed(ids, weights);
  for (twin::Layer& layer : model_.layers()) {
    h = layer.forward(h, weights);
    if (where.empty() && !all_finite(h)) where = fmt::format("the output of layer {}", layer.layer());
  }
  if (where.empty() && !all_finite(model_.head(h, weights))) where = "the logits";
  for (const TrainedWeight& weight : weights_.trained()) {
    if (where.empty() && !all_finite(weight.value.grad())) where = "the gradient of " + weight.name;
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("training diverged in step {}: the loss is {}, and {} is not finite", step, loss, where),
              "finite losses and gradients", "choose a smaller --lr, a longer --warmup-ratio or a smaller --clip");
}

}  // namespace kedge::training
