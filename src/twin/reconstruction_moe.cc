#include "twin/reconstruction_moe.h"

#include <limits>

#include <ATen/ops/full_like.h>
#include <ATen/ops/huber_loss.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include "base/check.h"
#include "twin/grouped.h"
#include "twin/pairs.h"

namespace kedge::twin {
namespace {

constexpr double kTiny = std::numeric_limits<float>::min();

Tensor activated(const std::optional<FfnActivation>& act, const Tensor& x) { return act ? activation(*act, x) : x; }

/// p = U_e x, [E, N, r].
Tensor codes_of(const ReconstructionMoeTensors& w, const Tensor& x) { return at::matmul(x, w.encoder.mT()); }

/// xx [N], yy, xy [E, N] -> [E, N].
Tensor cosine_error(const Tensor& xx, const Tensor& yy, const Tensor& xy) {
  return 1 - xy / (xx.clamp_min(kTiny).sqrt() * yy.clamp_min(kTiny).sqrt());
}

Tensor normalized(const ErrorRouterSpec& spec, const Tensor& error, const Tensor& xx) {
  switch (spec.normalization) {
    case ErrorNormalization::none: return error;
    case ErrorNormalization::width: return error / static_cast<double>(spec.hidden_size);
    case ErrorNormalization::input: return error / xx.clamp_min(kTiny);
  }
  return error;
}

/// [E, N].
Tensor errors_of(const ErrorRouterSpec& spec, const ReconstructionMoeTensors& w, const Tensor& x, const Tensor& p,
                 const Tensor& h) {
  if (spec.is_learned()) return -p.squeeze(-1);
  const Tensor xx = x.square().sum(-1);
  const ErrorPath path = error_path(spec);
  if (path != ErrorPath::direct) {
    const Tensor q = path == ErrorPath::stiefel ? h : at::matmul(h, at::matmul(w.encoder, w.encoder.mT()));
    if (spec.measure == ErrorMeasure::cosine) return cosine_error(xx, (h * q).sum(-1), (p * h).sum(-1));
    return normalized(spec, xx + (h * (q - 2 * p)).sum(-1), xx);
  }
  const Tensor y = at::matmul(h, spec.tied ? w.encoder : w.decoder.mT());  // [E, N, d]
  switch (spec.measure) {
    case ErrorMeasure::squared: return normalized(spec, (x - y).square().sum(-1), xx);
    case ErrorMeasure::cosine: return cosine_error(xx, y.square().sum(-1), (x * y).sum(-1));
    case ErrorMeasure::huber:
      return normalized(spec, at::huber_loss(y, x.expand_as(y), at::Reduction::None, spec.huber_delta).sum(-1), xx);
    case ErrorMeasure::linear: break;
  }
  return {};
}

/// The selected experts' outputs [N, slots, d].
Tensor outputs_of(const ReconstructionMoe& spec, const ReconstructionMoeTensors& w, const Tensor& x, const Tensor& h,
                  const Tensor& ids) {
  const Pairs pairs = sort_pairs(ids, spec.router.num_experts);
  if (spec.output == ExpertOutput::reconstruction) {
    const Tensor index = ids.unsqueeze(-1).expand({-1, -1, spec.router.bottleneck});
    const Tensor rows = h.transpose(0, 1).gather(1, index).flatten(0, 1).index_select(0, pairs.order);
    const Tensor decoder = spec.router.tied ? w.encoder.mT() : w.decoder;
    return restore_slots(grouped_linear(rows, decoder, pairs.counts), pairs);
  }
  const Tensor rows = gather_tokens(x.to(w.up.scalar_type()), pairs), up = grouped_linear(rows, w.up, pairs.counts);
  const Tensor hidden = spec.gated ? gated_activation(spec.hidden_act, grouped_linear(rows, w.gate, pairs.counts), up)
                                   : activation(spec.hidden_act, up);
  return restore_slots(grouped_linear(hidden, w.down, pairs.counts), pairs);
}

}  // namespace

Tensor reconstruction_errors(const ErrorRouterSpec& spec, const ReconstructionMoeTensors& w, const Tensor& x) {
  const Tensor p = codes_of(w, x);
  return errors_of(spec, w, x, p, activated(spec.activation, p)).t();
}

ErrorRouted reconstruction_moe(const ReconstructionMoe& spec, const ReconstructionMoeTensors& w, const Tensor& x) {
  check_error_router(spec.router);
  KEDGE_CHECK(w.encoder.sizes() ==
              at::IntArrayRef({spec.router.num_experts, spec.router.bottleneck, spec.router.hidden_size}));
  KEDGE_CHECK(w.decoder.defined() != spec.router.tied);
  const std::int64_t slots = spec.router.slots();
  ErrorRouted out;
  const Tensor p = codes_of(w, x), h = activated(spec.router.activation, p);
  out.errors = errors_of(spec.router, w, x, p, h).t();
  const Tensor order = std::get<1>(at::sort(out.errors.detach(), /*stable=*/true, /*dim=*/-1, /*descending=*/false));
  out.expert_ids = order.narrow(-1, 0, slots);
  const Tensor temperature =
      w.temperature.defined() ? w.temperature : at::full({}, spec.router.temperature, x.options());
  out.probabilities = at::softmax(-out.errors / temperature, -1);
  const Tensor chosen = out.errors.gather(-1, out.expert_ids);
  out.weights = spec.router.combine == CombineMethod::uniform ? at::full_like(chosen, 1.0 / static_cast<double>(slots))
                                                              : at::softmax(-chosen / temperature, -1);
  const Tensor outputs = outputs_of(spec, w, x, h, out.expert_ids);
  out.y = at::bmm(out.weights.unsqueeze(1).to(outputs.scalar_type()), outputs).squeeze(1);
  if (spec.router.combine == CombineMethod::residual) out.y = out.y + x;
  return out;
}

Tensor routed_by_error(const ReconstructionMoe& spec, const Scope& scope, const Tensor& x, Routing& routing) {
  const ErrorRouterSpec& r = spec.router;
  const auto type = scope.options.dtype == at::kDouble ? at::kDouble : at::kFloat;
  const auto stack = [&](const char* projection) {
    if (scope.options.stacked_experts) {
      return scope.weights(fmt::format("{}experts.{}.weight", scope.prefix, projection))
          .to(scope.options.compute_dtype);
    }
    std::vector<Tensor> matrices;
    for (std::int64_t e = 0; e < r.num_experts; ++e) {
      matrices.push_back(scope.weights(fmt::format("{}experts.{}.{}.weight", scope.prefix, e, projection)));
    }
    return at::stack(matrices).to(scope.options.compute_dtype);
  };
  ReconstructionMoeTensors w;
  w.encoder = scope.weights(scope.prefix + "gate.weight").to(type).view({r.num_experts, r.bottleneck, r.hidden_size});
  if (!r.tied) {
    w.decoder =
        scope.weights(scope.prefix + "gate.decoder.weight").to(type).view({r.num_experts, r.hidden_size, r.bottleneck});
  }
  if (spec.output == ExpertOutput::ffn) {
    if (spec.gated) w.gate = stack("gate_proj");
    w.up = stack("up_proj");
    w.down = stack("down_proj");
  }
  w.temperature = at::full({1}, r.temperature, at::TensorOptions().dtype(type).device(x.device()));
  if (r.trained_temperature) {
    w.temperature = w.temperature * scope.weights(scope.prefix + "gate.log_temperature").to(type).exp();
  }
  const ErrorRouted routed = reconstruction_moe(spec, w, x.to(type));
  routing.input = x;
  routing.logits = routing.scores = -routed.errors / w.temperature;
  routing.expert_ids = routed.expert_ids;
  routing.weights = routed.weights;
  if (!r.is_learned()) routing.errors = routed.errors;
  return routed.y;
}

}  // namespace kedge::twin
