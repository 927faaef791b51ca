#include "model/classifier.h"

#include <algorithm>

#include <fmt/format.h>

#include "kedge/error.h"
#include "kernels/softmax/softmax.h"
#include "moe/permutation.h"
#include "nn/elementwise.h"
#include "nn/probe.h"

namespace kedge {
namespace {

/// Names in the file are the canonical ones.
class ClassifierSource : public WeightSource {
 public:
  explicit ClassifierSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  WeightData weight(const std::string& module, std::int64_t rows, std::int64_t cols) const override {
    return checkpoint_.weight(module, rows, cols);
  }
  std::vector<float> vector(const std::string& name, std::int64_t size) const override {
    const TensorView tensor = checkpoint_.tensor(name, {size});
    if (!is_convertible_float(tensor.dtype)) {
      throw Error(ErrorCode::bad_file, "tensor '" + name + "' has the element type " + dtype_name(tensor.dtype),
                  "F32, BF16 or F16");
    }
    std::vector<float> out(static_cast<std::size_t>(size));
    convert_to_float(tensor.dtype, tensor.data, size, out.data());
    return out;
  }
  void done(const std::string& module) const noexcept override { checkpoint_.drop(module); }

 private:
  const Checkpoint& checkpoint_;
};

void report_choice(const ExecContext& ctx, const RouterSpec& router, std::int64_t rows, const std::int32_t* ids,
                   const float* weights, const float* logits, const float* scores) {
  if (ctx.probe == nullptr || !ctx.probe->wants(Site::routing)) return;
  const auto chosen = static_cast<std::size_t>(rows * router.num_experts_per_tok);
  const auto all = static_cast<std::size_t>(rows * router.num_experts);
  RoutingDecision decision;
  decision.tokens = rows;
  decision.num_experts = router.num_experts;
  decision.top_k = router.num_experts_per_tok;
  decision.expert_ids = {ids, chosen};
  decision.weights = {weights, chosen};
  decision.logits = {logits, all};
  decision.scores = {scores, all};
  ctx.probe->routing(0, decision);
}

// Rows of one pass: what they need in scratch stays in the caches.
constexpr std::int64_t kMaxRows = 1024;

}  // namespace

Classifier Classifier::load(const Checkpoint& checkpoint, LoadOptions options) {
  const std::string where = (checkpoint.directory() / "config.json").string();
  return load(checkpoint, classifier_spec(checkpoint.config(), where), options);
}

Classifier Classifier::load(const Checkpoint& checkpoint, const ClassifierSpec& spec, LoadOptions options) {
  Classifier classifier;
  classifier.spec_ = spec;
  options.activations =
      checkpoint.input_activations() == InputActivations::none ? Activations::fp32 : Activations::int8;
  classifier.isa_ = options.isa;
  const ClassifierSource source(checkpoint);
  for (const ClassifierLinear& linear : list_linears(spec)) {
    if (linear.expert >= 0) continue;
    if (linear.router && spec.routes_by_error()) {
      const Tensor encoders = to_float_matrix(source.weight(linear.module, linear.rows, linear.cols), linear.module);
      const std::span<const float> values(encoders.data<float>(), static_cast<std::size_t>(encoders.size()));
      classifier.error_router_ =
          ReconstructionRouter::load(error_router(spec), {values, nullptr}, {}, AnchorForm::decoded, options);
      source.done(linear.module);
      continue;
    }
    Layer layer{linear.router ? Linear::load_router(source, linear.module, linear.rows, linear.cols, options)
                              : Linear::load(source, linear.module, linear.rows, linear.cols, false, options),
                source.vector(linear.module + ".bias", linear.rows)};
    if (linear.router) {
      classifier.router_ = std::move(layer);
    } else {
      classifier.layers_.push_back(std::move(layer));
    }
  }
  if (spec.has_moe()) {
    classifier.experts_ = MlpExperts::load(source, "moe.experts", spec.router.num_experts, spec.hidden_sizes[0],
                                           spec.moe_intermediate_size, options);
  }
  return classifier;
}

Classifier Classifier::open(const std::filesystem::path& directory, const LoadOptions& options) {
  return load(Checkpoint::open(directory), options);
}

Classifier::Choice Classifier::choose(const ExecContext& ctx, const float* h, std::int64_t rows) const {
  const std::int64_t experts = spec_.router.num_experts, k = spec_.router.num_experts_per_tok;
  auto* logits = ctx.scratch.take<float>(rows * experts);
  auto* scores = ctx.scratch.take<float>(rows * experts);
  auto* weights = ctx.scratch.take<float>(rows * k);
  auto* ids = ctx.scratch.take<std::int32_t>(rows * k);
  router_.linear.forward(ctx, h, rows, logits);
  add_bias(ctx, logits, experts, rows, experts, router_.bias.data());
  route(spec_.router, logits, rows, {}, ids, weights, scores, isa_);
  report_choice(ctx, spec_.router, rows, ids, weights, logits, scores);
  return {ids, weights};
}

Classifier::Choice Classifier::choose_by_error(const ExecContext& ctx, const float* h, std::int64_t rows) const {
  const ErrorRouting routing = error_router_.route(ctx, h, rows);
  if (ctx.probe != nullptr && ctx.probe->wants(Site::routing)) {
    const std::int64_t count = rows * spec_.router.num_experts;
    auto* logits = ctx.scratch.take<float>(count);
    auto* scores = ctx.scratch.take<float>(count);
    for (std::int64_t i = 0; i < count; ++i) logits[i] = -routing.errors[i] / spec_.router_temperature;
    std::copy_n(logits, count, scores);
    softmax(scores, rows, spec_.router.num_experts, isa_);
    report_choice(ctx, spec_.router, rows, routing.expert_ids, routing.weights, logits, scores);
  }
  return {routing.expert_ids, routing.weights};
}

void Classifier::forward_moe(const ExecContext& ctx, float* h, std::int64_t rows) const {
  ArenaScope scope(ctx.scratch);
  const std::int64_t hidden = spec_.hidden_sizes[0];
  const Choice choice = spec_.routes_by_error() ? choose_by_error(ctx, h, rows) : choose(ctx, h, rows);
  auto* out = ctx.scratch.take<float>(rows * hidden);
  experts_.forward(
      ctx, h,
      make_permutation(choice.ids, rows, spec_.router.num_experts_per_tok, spec_.router.num_experts, ctx.scratch),
      choice.weights, out);
  add_scaled(ctx, h, out, rows * hidden, 1.0f);
}

void Classifier::forward(const ExecContext& ctx, const float* x, std::int64_t rows, float* logits) const {
  for (std::int64_t begin = 0; begin < rows; begin += kMaxRows) {
    ArenaScope scope(ctx.scratch);
    const std::int64_t count = std::min(kMaxRows, rows - begin);
    const float* in = x + begin * spec_.num_inputs();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      const std::int64_t out = layer.linear.out();
      const bool last = i + 1 == layers_.size();
      float* y = last ? logits + begin * spec_.num_classes : ctx.scratch.take<float>(count * out);
      layer.linear.forward(ctx, in, count, y);
      if (last) {
        add_bias(ctx, y, out, count, out, layer.bias.data());
      } else {
        add_bias_relu(ctx, y, out, count, out, layer.bias.data());
      }
      if (i == 0 && spec_.has_moe()) forward_moe(ctx, y, count);
      in = y;
    }
  }
}

std::size_t Classifier::num_bytes() const noexcept {
  std::size_t bytes = experts_.num_bytes() + router_.linear.num_bytes() + router_.bias.size() * sizeof(float) +
                      error_router_.num_bytes();
  for (const Layer& layer : layers_) bytes += layer.linear.num_bytes() + layer.bias.size() * sizeof(float);
  return bytes;
}

}  // namespace kedge
