#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/check.h"
#include "kedge/error.h"
#include "kernels/softmax/softmax.h"

namespace kedge {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

void require(bool ok, const char* name, double value, const char* expected) {
  if (!ok) throw Error(ErrorCode::usage, std::string(name) + " is " + std::to_string(value), expected);
}

}  // namespace

std::int32_t argmax(std::span<const float> logits) noexcept {
  std::int32_t best = 0;
  float highest = minus_infinity;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > highest) {
      highest = logits[i];
      best = static_cast<std::int32_t>(i);
    }
  }
  return best;
}

Sampler::Sampler(const SamplingParams& params, std::int64_t vocab_size, Isa isa)
    : params_(params), isa_(isa), rng_(params.seed) {
  KEDGE_CHECK(vocab_size > 0);
  require(std::isfinite(params.temperature) && params.temperature >= 0, "the temperature", params.temperature,
          "a finite number, 0 or above");
  require(params.top_k >= 0, "top-k", params.top_k, "0 (off) or above");
  require(params.top_p > 0 && params.top_p <= 1, "top-p", params.top_p, "above 0, at most 1");
  require(params.min_p >= 0 && params.min_p <= 1, "min-p", params.min_p, "between 0 and 1");
  if (params.temperature > 0) {
    candidates_.resize(static_cast<std::size_t>(vocab_size));
    scratch_.resize(static_cast<std::size_t>(vocab_size));
  }
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  if (params_.temperature == 0) return argmax(logits);
  KEDGE_CHECK(logits.size() == scratch_.size());
  candidates_.resize(logits.size());  // within its capacity
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {std::isnan(logits[i]) ? minus_infinity : logits[i], static_cast<std::int32_t>(i), 0};
  }
  keep_top_k();
  set_probabilities();
  keep_top_p();
  keep_min_p();
  return draw();
}

void Sampler::keep_top_k() {
  const auto k = static_cast<std::size_t>(params_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  const auto kth = candidates_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(candidates_.begin(), kth, candidates_.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  const float lowest = kth->logit;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < lowest; });
  // nth_element leaves an unspecified order; the draw walks in this one.
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void Sampler::set_probabilities() {
  float highest = minus_infinity;
  for (const Candidate& c : candidates_) highest = std::max(highest, c.logit);
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    // The difference first: a tiny temperature must not give infinity minus infinity.
    const float distance = candidates_[i].logit == highest ? 0.0f : candidates_[i].logit - highest;
    scratch_[i] = distance / params_.temperature;
  }
  softmax(scratch_.data(), 1, static_cast<std::int64_t>(candidates_.size()), isa_);
  for (std::size_t i = 0; i < candidates_.size(); ++i) candidates_[i].probability = scratch_[i];
}

void Sampler::keep_top_p() {
  if (params_.top_p >= 1) return;
  // A heap gives the few highest without sorting the vocabulary.
  const auto below = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
  };
  std::make_heap(candidates_.begin(), candidates_.end(), below);
  auto end = candidates_.end();
  double mass = 0;
  while (end != candidates_.begin() && mass < params_.top_p) {
    std::pop_heap(candidates_.begin(), end, below);
    --end;
    mass += end->probability;
  }
  candidates_.erase(candidates_.begin(), end);
}

void Sampler::keep_min_p() {
  if (params_.min_p <= 0) return;
  float highest = 0;
  for (const Candidate& c : candidates_) highest = std::max(highest, c.probability);
  std::erase_if(candidates_, [&](const Candidate& c) { return c.probability < params_.min_p * highest; });
}

std::int32_t Sampler::draw() {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.probability;
  const double target = rng_.uniform() * total;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += c.probability;
    if (target < sum) return c.id;
  }
  // Rounding put the target at the very end: the last token that can be drawn.
  for (auto c = candidates_.rbegin(); c != candidates_.rend(); ++c) {
    if (c->probability > 0) return c->id;
  }
  return candidates_.front().id;
}

}  // namespace kedge
