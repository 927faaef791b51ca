#include "eval/diffusion_scorer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/interrupt.h"
#include "base/rng.h"
#include "generate/score.h"
#include "kedge/error.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int64_t kMaxRows = 1024;                       // of one pass
constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;  // of one pass

// One sequence with masks.
struct Sample {
  Tokens tokens;
  std::vector<std::size_t> masked;  // positions within tokens
};

// FNV-1a over the tokens: where a request's random numbers begin.
std::uint64_t hash_of(const ScoreRequest& request) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  const auto add = [&](std::uint64_t value) { hash = (hash ^ value) * 0x100000001B3u; };
  for (const Tokens* part : {&request.context, &request.continuation}) {
    for (const std::int32_t token : *part) add(static_cast<std::uint64_t>(token));
    add(~std::uint64_t{0});
  }
  return hash;
}

}  // namespace

struct DiffusionScorer::Impl {
  const LoadedModel& model;
  std::int64_t samples;
  std::uint64_t seed;
  std::int64_t computed = 0;
  Arena scratch;
  std::vector<SequenceState> states;
  std::vector<float> logits;

  std::vector<Sample> draw(const ScoreRequest& request) const;
  RequestScore score(const ScoreRequest& request);
  std::vector<double> run(std::span<const Sample> pass, const Tokens& answer, std::size_t answer_begin, bool* greedy);
};

// The first has all of the answer masked: it says what is greedy, and is a sample only where L = 1.
std::vector<Sample> DiffusionScorer::Impl::draw(const ScoreRequest& request) const {
  const ModelSpec& spec = model.model.spec();
  const std::size_t length = request.continuation.size();
  if (static_cast<std::int64_t>(length) >= spec.max_position_embeddings) {
    throw Error(ErrorCode::usage, fmt::format("an answer has {} tokens", length),
                fmt::format("fewer than {}, the model's context", spec.max_position_embeddings));
  }
  const std::size_t keep =
      std::min(request.context.size(), static_cast<std::size_t>(spec.max_position_embeddings) - length);
  Tokens whole(request.context.end() - static_cast<std::ptrdiff_t>(keep), request.context.end());
  whole.insert(whole.end(), request.continuation.begin(), request.continuation.end());
  std::vector<std::size_t> places(length);
  std::iota(places.begin(), places.end(), keep);
  const auto masked = [&](std::size_t count) {
    Sample sample{whole, {places.begin(), places.begin() + static_cast<std::ptrdiff_t>(count)}};
    std::sort(sample.masked.begin(), sample.masked.end());
    for (const std::size_t at : sample.masked) sample.tokens[at] = static_cast<std::int32_t>(spec.mask_token_id);
    return sample;
  };
  std::vector<Sample> out = {masked(length)};
  Rng rng(Rng(seed).next() ^ hash_of(request));
  for (std::int64_t s = 0; length > 1 && s < samples; ++s) {
    const std::size_t count = 1 + rng.below(length);
    // The first `count` of a random order.
    for (std::size_t i = 0; i < count; ++i) std::swap(places[i], places[i + rng.below(length - i)]);
    out.push_back(masked(count));
  }
  return out;
}

// Sum of ln p of the masked tokens of each sample.
std::vector<double> DiffusionScorer::Impl::run(std::span<const Sample> pass, const Tokens& answer,
                                               std::size_t answer_begin, bool* greedy) {
  throw_if_interrupted();
  const auto vocab = static_cast<std::size_t>(model.model.spec().vocab_size);
  const std::size_t length = pass.front().tokens.size();
  std::vector<Segment> segments;
  for (std::size_t i = 0; i < pass.size(); ++i) {
    states[i].truncate(0);
    segments.push_back({&states[i], pass[i].tokens});
  }
  logits.resize(std::max(logits.size(), pass.size() * length * vocab));
  const ArenaScope scope(scratch);
  model.model.forward({model.threads, scratch, nullptr}, segments, LogitRows::all, logits.data());
  computed += static_cast<std::int64_t>(pass.size() * length);

  const Isa isa = model.model.options().isa;
  std::vector<double> sums(pass.size(), 0.0);
  std::vector<std::uint8_t> all_best(pass.size(), 1);
  model.threads.parallel_for(static_cast<std::int64_t>(pass.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      for (const std::size_t at : pass[i].masked) {
        const std::span<const float> row(logits.data() + (i * length + at) * vocab, vocab);
        const std::int32_t token = answer[at - answer_begin];
        sums[i] -= negative_log_likelihood(row, token, isa);
        if (argmax(row) != token) all_best[i] = 0;
      }
    }
  });
  if (greedy != nullptr) *greedy = all_best.front() != 0;
  return sums;
}

RequestScore DiffusionScorer::Impl::score(const ScoreRequest& request) {
  const std::vector<Sample> all = draw(request);
  const auto length = static_cast<std::int64_t>(all.front().tokens.size());
  const std::int64_t row_bytes = model.model.spec().vocab_size * static_cast<std::int64_t>(sizeof(float));
  const auto fitting = static_cast<std::size_t>(
      std::max<std::int64_t>(1, std::min(kMaxRows, kLogitBytes / row_bytes) / length));
  if (states.empty() || states.front().capacity() < length) states.clear();
  // One capacity for all: a shorter request's states must serve the next, longer one.
  const std::int64_t capacity = states.empty() ? length : states.front().capacity();
  while (states.size() < std::min(fitting, all.size())) states.emplace_back(model.model.spec(), capacity);

  const std::size_t answer_begin = all.front().tokens.size() - request.continuation.size();
  RequestScore out;
  std::vector<double> values;
  for (std::size_t begin = 0; begin < all.size(); begin += fitting) {
    const auto pass = std::span(all).subspan(begin, std::min(fitting, all.size() - begin));
    const std::vector<double> sums =
        run(pass, request.continuation, answer_begin, begin == 0 ? &out.is_greedy : nullptr);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (begin + i == 0 && all.size() > 1) continue;
      values.push_back(sums[i] * static_cast<double>(request.continuation.size()) /
                       static_cast<double>(pass[i].masked.size()));
    }
  }
  const Interval mean = mean_interval(values);
  out.loglikelihood = mean.mean;
  out.standard_error = values.size() > 1 ? mean.standard_error : 0.0;
  return out;
}

DiffusionScorer::DiffusionScorer(const LoadedModel& model, std::int64_t samples, std::uint64_t seed)
    : impl_(new Impl{model, samples, seed, 0, {}, {}, {}}) {
  KEDGE_CHECK(model.model.spec().is_masked_diffusion() && samples > 0);
}
DiffusionScorer::~DiffusionScorer() = default;

void DiffusionScorer::score(std::span<const ScoreRequest> requests,
                            const std::function<void(std::size_t, const RequestScore&)>& done,
                            const std::function<void()>& finished_round) {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    done(i, impl_->score(requests[i]));
    finished_round();
  }
}

std::int64_t DiffusionScorer::tokens_computed() const noexcept { return impl_->computed; }

}  // namespace kedge
