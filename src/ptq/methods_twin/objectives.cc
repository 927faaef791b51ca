#include "ptq/methods_twin/objectives.h"

#include <algorithm>
#include <limits>

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/softplus.h>

#include "base/check.h"

namespace kedge {
namespace {

using twin::Routing;

constexpr double kSoftness = 0.25;
// Keeps a quotient finite where a router is so sure that all slopes underflow.
constexpr double kLeastWeight = 1e-20;

/// Experts by descending selection score, survivors first.
struct Ranking {
  at::Tensor scores;  ///< [N, E], -infinity for experts of excluded groups
  at::Tensor ids;     ///< [N, E]
};

Ranking rank(const Routing& routing) {
  auto [scores, ids] = at::sort(routing.ranked_scores(), /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  return {scores, ids};
}

std::int64_t experts_of(const RouterPair& pair) { return pair.spec.num_experts; }
std::int64_t count_or(std::int64_t given, std::int64_t fallback, std::int64_t most) {
  return std::min(given > 0 ? given : fallback, most);
}

/// 1 for survivors among the first `count` ranks, else 0; undefined where all experts survive.
at::Tensor survivors(const RouterPair& pair, const Ranking& ranking, std::int64_t first, std::int64_t count) {
  if (!pair.original.candidates.defined()) return {};
  return (ranking.scores.narrow(1, first, count) > -std::numeric_limits<double>::infinity()).to(at::kFloat);
}

at::Tensor centred(const at::Tensor& logits) { return logits - logits.mean(-1, /*keepdim=*/true); }

/// mean over tokens of sum w (z^ - z)^2 / sum w over the first `count`; w undefined: 1.
at::Tensor logit_error(const RouterPair& pair, const Ranking& ranking, std::int64_t count, const at::Tensor& weights,
                       bool centre) {
  const at::Tensor ids = ranking.ids.narrow(1, 0, count);
  const at::Tensor z = (centre ? centred(pair.original.logits) : pair.original.logits).gather(1, ids);
  const at::Tensor z_hat = (centre ? centred(pair.quantized.logits) : pair.quantized.logits).gather(1, ids);
  const at::Tensor squares = (z_hat - z).square(), alive = survivors(pair, ranking, 0, count);
  at::Tensor w = weights;
  if (alive.defined()) w = w.defined() ? w * alive : alive;
  if (!w.defined()) return squares.mean();
  return ((w * squares).sum(-1) / w.sum(-1).clamp_min(kLeastWeight)).mean();
}

at::Tensor topk_mse(const RouterPair& pair, const TuneParameters& p) {
  const std::int64_t k = pair.spec.num_experts_per_tok;
  return logit_error(pair, rank(pair.original), count_or(p.loss_k, 2 * k, experts_of(pair)), {}, false);
}

at::Tensor value(const RouterPair& pair, const TuneParameters& p) {
  const std::int64_t k = pair.spec.num_experts_per_tok, count = count_or(p.loss_m, 2 * k, experts_of(pair));
  const Ranking ranking = rank(pair.original);
  const bool is_softmax = pair.spec.scoring_func == ScoringFunc::softmax;
  at::Tensor w;
  if (p.value_weights != ValueWeights::none) {
    const at::Tensor output = is_softmax ? at::softmax(pair.original.logits, -1) : at::sigmoid(pair.original.logits);
    w = (output * (1 - output)).gather(1, ranking.ids.narrow(1, 0, count));
  }
  if (p.value_weights == ValueWeights::boundary && k < experts_of(pair) && pair.margin > 0) {
    const at::Tensor next = ranking.scores.narrow(1, k, 1), last = ranking.scores.narrow(1, k - 1, 1);
    const at::Tensor middle = (last + next) / 2;
    const at::Tensor distance = (ranking.scores.narrow(1, 0, count) - middle).abs();
    // Where no survivor is left beyond S there is no boundary to be near to.
    w = w * (distance / (-p.tau * pair.margin)).exp().nan_to_num(1.0).masked_fill(next.isinf(), 1.0);
  }
  return logit_error(pair, ranking, count, w, is_softmax && p.centring);
}

at::Tensor divergence(const RouterPair& pair, const at::Tensor& ids) {
  at::Tensor log_p = at::log_softmax(pair.original.logits, -1), log_q = at::log_softmax(pair.quantized.logits, -1);
  if (ids.defined()) {
    log_p = log_p.gather(1, ids);
    log_q = log_q.gather(1, ids);
  }
  return (log_p.exp() * (log_p - log_q)).sum(-1).mean();
}

at::Tensor kl(const RouterPair& pair, const TuneParameters& p) {
  const std::int64_t count = count_or(p.loss_k, pair.spec.num_experts_per_tok, experts_of(pair));
  return divergence(pair, rank(pair.original).ids.narrow(1, 0, count));
}

at::Tensor kl_full(const RouterPair& pair, const TuneParameters&) { return divergence(pair, {}); }

/// phi(min(gamma, gap) - gap^) of every pair of a row of `a` and one of `b`.
struct Gaps {
  at::Tensor original, quantized;  ///< [N, A, B]

  at::Tensor penalty(const RouterPair& pair, const TuneParameters& p) const {
    const at::Tensor x = original.clamp_max(p.gamma * pair.margin) - quantized;
    if (p.phi == HingeShape::hinge) return x.relu();
    const double softness = kSoftness * pair.margin;
    return at::softplus(x / softness) * softness;
  }
};

Gaps gaps(const RouterPair& pair, const at::Tensor& upper, const at::Tensor& lower) {
  const auto difference = [&](const at::Tensor& scores) {
    return scores.gather(1, upper).unsqueeze(2) - scores.gather(1, lower).unsqueeze(1);
  };
  return {difference(pair.original.scores), difference(pair.quantized.scores)};
}

at::Tensor order(const RouterPair& pair, const TuneParameters& p) {
  const std::int64_t k = pair.spec.num_experts_per_tok;
  if (k < 2 || !(pair.margin > 0)) return {};
  const at::Tensor chosen = rank(pair.original).ids.narrow(1, 0, k);
  const at::Tensor penalties = gaps(pair, chosen, chosen).penalty(pair, p).triu(1);
  return penalties.sum() / (double(penalties.size(0)) * double(k) * double(k - 1) / 2);
}

at::Tensor boundary(const RouterPair& pair, const TuneParameters& p) {
  const std::int64_t k = pair.spec.num_experts_per_tok, experts = experts_of(pair);
  if (k >= experts || !(pair.margin > 0)) return {};
  const std::int64_t others = std::max<std::int64_t>(count_or(p.loss_m, 2 * k, experts), k + 1) - k;
  const Ranking ranking = rank(pair.original);
  const at::Tensor penalties =
      gaps(pair, ranking.ids.narrow(1, 0, k), ranking.ids.narrow(1, k, others)).penalty(pair, p);
  const at::Tensor alive = survivors(pair, ranking, k, others);
  if (!alive.defined()) return penalties.mean();
  return (penalties * alive.unsqueeze(1)).sum() / (alive.sum() * double(k)).clamp_min(1.0);
}

struct Term {
  ObjectiveTerm term;
  at::Tensor (*compute)(const RouterPair& pair, const TuneParameters& parameters);
};

constexpr Term kTerms[] = {
    {ObjectiveTerm::topk_mse, topk_mse}, {ObjectiveTerm::kl, kl},       {ObjectiveTerm::kl_full, kl_full},
    {ObjectiveTerm::value, value},       {ObjectiveTerm::order, order}, {ObjectiveTerm::boundary, boundary},
};

}  // namespace

at::Tensor output_error(const at::Tensor& original, const at::Tensor& quantized) {
  return at::mse_loss(quantized, original);
}

at::Tensor routing_term(ObjectiveTerm term, const RouterPair& pair, const TuneParameters& parameters) {
  for (const Term& row : kTerms) {
    if (row.term == term) return row.compute(pair, parameters);
  }
  KEDGE_CHECK(!"a term without a formula");
  return {};
}

at::Tensor boundary_margins(const RouterSpec& spec, const Routing& routing) {
  const std::int64_t k = spec.num_experts_per_tok;
  if (k >= spec.num_experts) return {};
  const at::Tensor scores = rank(routing).scores;
  const at::Tensor margins = scores.select(1, k - 1) - scores.select(1, k);
  return margins.masked_select(margins.isfinite());
}

}  // namespace kedge
