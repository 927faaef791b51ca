#include "eval/scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "generate/score.h"
#include "kedge/error.h"

namespace kedge {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int64_t kMaxLanes = 64;
constexpr std::int64_t kMaxRows = 1024;                       // of one pass
constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;  // of one pass

// Requests that continue one context.
struct Group {
  Tokens context;
  std::vector<std::size_t> requests;
};

std::size_t common_prefix(const Tokens& a, const Tokens& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// A token whose probability a row of logits is to give, and where it goes.
struct Target {
  std::int32_t token;
  double* logprob;
  std::uint8_t* greedy;
};

struct Lane {
  Lane(const ModelSpec& spec, std::int64_t capacity) : state(spec, capacity) {}
  void cut(std::size_t length) {
    state.truncate(static_cast<std::int64_t>(length));
    tokens.resize(length);
  }
  SequenceState state;
  Tokens tokens;  // what the state holds
  const Group* group = nullptr;
};

// Tokens for one lane and, where logits are wanted, what each row of them is asked.
struct Feed {
  Lane* lane;
  std::span<const std::int32_t> tokens;
  std::span<const std::vector<Target>> targets = {};  // [tokens]
};

}  // namespace

struct LoglikelihoodScorer::Impl {
  Impl(const LoadedModel& loaded, std::size_t bytes)
      : model(loaded),
        memory(bytes),
        vocab(loaded.model.spec().vocab_size),
        max_length(loaded.model.spec().max_position_embeddings) {}

  const LoadedModel& model;
  std::size_t memory;
  std::int64_t vocab, max_length;
  std::int64_t computed = 0, asked = 0;
  Arena scratch;
  std::vector<float> logits;  // [rows of a pass, vocab]
  std::vector<Lane> lanes;
  std::vector<Segment> segments;
  std::vector<const std::vector<Target>*> row_targets;
  // Of the requests of a round.
  std::map<std::size_t, RequestScore> scores;
  std::map<std::size_t, std::vector<std::uint8_t>> greedy;

  std::vector<Group> make_groups(std::span<const ScoreRequest> requests) const;
  void make_lanes(const std::vector<Group>& groups, std::span<const ScoreRequest> requests);
  void run_round(std::span<const ScoreRequest> requests);
  void feed_contexts();
  void feed_continuations(std::span<const ScoreRequest> requests, std::size_t turn);
  std::vector<Target> targets_of(const ScoreRequest& request, std::size_t index, std::size_t position);
  void run_passes(std::span<const Feed> feeds, bool with_logits);
  void forward(std::span<const Feed> feeds, bool with_logits);
};

std::vector<Group> LoglikelihoodScorer::Impl::make_groups(std::span<const ScoreRequest> requests) const {
  std::map<Tokens, std::vector<std::size_t>> by_context;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ScoreRequest& request = requests[i];
    KEDGE_CHECK(!request.context.empty() && !request.continuation.empty());
    const auto length = static_cast<std::int64_t>(request.continuation.size());
    if (length > max_length) {
      throw Error(ErrorCode::usage, fmt::format("an answer has {} tokens", length),
                  fmt::format("at most {}, the model's context", max_length));
    }
    // The last token is predicted but predicts nothing, so context + continuation may have one more.
    const auto keep = std::min(static_cast<std::int64_t>(request.context.size()), max_length + 1 - length);
    by_context[Tokens(request.context.end() - keep, request.context.end())].push_back(i);
  }
  std::vector<Group> groups;
  for (auto& [context, indices] : by_context) groups.push_back({context, std::move(indices)});
  return groups;
}

void LoglikelihoodScorer::Impl::make_lanes(const std::vector<Group>& groups, std::span<const ScoreRequest> requests) {
  std::size_t longest = 1;
  for (const Group& group : groups) {
    for (const std::size_t i : group.requests) {
      longest = std::max(longest, group.context.size() + requests[i].continuation.size() - 1);
    }
  }
  const auto capacity = static_cast<std::int64_t>(longest);
  const std::size_t each = std::max<std::size_t>(1, SequenceState::bytes_for(model.model.spec(), capacity));
  const auto fitting = std::clamp<std::int64_t>(static_cast<std::int64_t>(memory / each), 1, kMaxLanes);
  lanes.clear();
  lanes.reserve(groups.size());
  for (std::int64_t i = 0; i < std::min(fitting, static_cast<std::int64_t>(groups.size())); ++i) {
    lanes.emplace_back(model.model.spec(), capacity);
  }
}

std::vector<Target> LoglikelihoodScorer::Impl::targets_of(const ScoreRequest& request, std::size_t index,
                                                          std::size_t position) {
  return {{request.continuation[position], &scores[index].token_logprobs[position], &greedy[index][position]}};
}

void LoglikelihoodScorer::Impl::forward(std::span<const Feed> feeds, bool with_logits) {
  throw_if_interrupted();
  segments.clear();
  row_targets.clear();
  std::int64_t rows = 0;
  for (const Feed& feed : feeds) {
    segments.push_back({&feed.lane->state, feed.tokens});
    rows += static_cast<std::int64_t>(feed.tokens.size());
    for (const std::vector<Target>& targets : feed.targets) row_targets.push_back(&targets);
  }
  computed += rows;
  const ArenaScope scope(scratch);
  const ExecContext ctx{model.threads, scratch, nullptr};
  if (with_logits) logits.resize(std::max(logits.size(), static_cast<std::size_t>(rows * vocab)));
  model.model.forward(ctx, segments, with_logits ? LogitRows::all : LogitRows::none,
                      with_logits ? logits.data() : nullptr);
  for (const Feed& feed : feeds) {
    feed.lane->tokens.insert(feed.lane->tokens.end(), feed.tokens.begin(), feed.tokens.end());
  }
  if (!with_logits) return;
  KEDGE_CHECK(static_cast<std::int64_t>(row_targets.size()) == rows);
  const Isa isa = model.model.options().isa;
  model.threads.parallel_for(rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::span<const float> row(logits.data() + r * vocab, static_cast<std::size_t>(vocab));
      const std::int32_t best = argmax(row);
      for (const Target& target : *row_targets[static_cast<std::size_t>(r)]) {
        *target.logprob = -negative_log_likelihood(row, target.token, isa);
        *target.greedy = target.token == best ? 1 : 0;
      }
    }
  });
}

// In passes of bounded size; a long feed is spread over several.
void LoglikelihoodScorer::Impl::run_passes(std::span<const Feed> feeds, bool with_logits) {
  const std::int64_t fitting = kLogitBytes / (vocab * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t limit = with_logits ? std::clamp<std::int64_t>(fitting, 16, kMaxRows) : kMaxRows;
  std::vector<Feed> pass;
  std::int64_t rows = 0;
  for (Feed feed : feeds) {
    while (!feed.tokens.empty()) {
      const std::size_t n = std::min(feed.tokens.size(), static_cast<std::size_t>(limit - rows));
      pass.push_back({feed.lane, feed.tokens.first(n), feed.targets.first(with_logits ? n : 0)});
      feed.tokens = feed.tokens.subspan(n);
      if (with_logits) feed.targets = feed.targets.subspan(n);
      rows += static_cast<std::int64_t>(n);
      if (rows < limit) continue;
      forward(pass, with_logits);
      pass.clear();
      rows = 0;
    }
  }
  if (!pass.empty()) forward(pass, with_logits);
}

// All of the contexts but their last tokens, whose rows predict the continuations.
void LoglikelihoodScorer::Impl::feed_contexts() {
  std::vector<Feed> feeds;
  for (Lane& lane : lanes) {
    if (lane.group == nullptr) continue;
    const Tokens& context = lane.group->context;
    const std::size_t kept = std::min(common_prefix(lane.tokens, context), context.size() - 1);
    lane.cut(kept);
    feeds.push_back({&lane, std::span(context).subspan(kept, context.size() - 1 - kept)});
  }
  run_passes(feeds, false);
}

// The turn-th continuation of each lane's context. The first turn feeds the context's last token too, and its row
// serves the first tokens of all continuations.
void LoglikelihoodScorer::Impl::feed_continuations(std::span<const ScoreRequest> requests, std::size_t turn) {
  std::vector<Feed> feeds;
  std::vector<Tokens> tokens(lanes.size());
  std::vector<std::vector<std::vector<Target>>> targets(lanes.size());
  for (std::size_t l = 0; l < lanes.size(); ++l) {
    Lane& lane = lanes[l];
    if (lane.group == nullptr || turn >= lane.group->requests.size()) continue;
    const std::size_t index = lane.group->requests[turn];
    const ScoreRequest& request = requests[index];
    if (turn == 0) {
      tokens[l].push_back(lane.group->context.back());
      std::vector<Target> first;
      for (const std::size_t other : lane.group->requests) {
        const std::vector<Target> one = targets_of(requests[other], other, 0);
        first.insert(first.end(), one.begin(), one.end());
      }
      targets[l].push_back(std::move(first));
    } else {
      lane.cut(lane.group->context.size());
    }
    for (std::size_t i = 0; i + 1 < request.continuation.size(); ++i) {
      tokens[l].push_back(request.continuation[i]);
      targets[l].push_back(targets_of(request, index, i + 1));
    }
    feeds.push_back({&lane, tokens[l], targets[l]});
  }
  run_passes(feeds, true);
}

void LoglikelihoodScorer::Impl::run_round(std::span<const ScoreRequest> requests) {
  scores.clear();
  greedy.clear();
  std::size_t turns = 0;
  for (const Lane& lane : lanes) {
    if (lane.group == nullptr) continue;
    turns = std::max(turns, lane.group->requests.size());
    for (const std::size_t index : lane.group->requests) {
      scores[index].token_logprobs.resize(requests[index].continuation.size());
      greedy[index].resize(requests[index].continuation.size());
      asked += static_cast<std::int64_t>(lane.group->context.size() + requests[index].continuation.size() - 1);
    }
  }
  feed_contexts();
  for (std::size_t turn = 0; turn < turns; ++turn) feed_continuations(requests, turn);
  for (auto& [index, score] : scores) {
    for (const double value : score.token_logprobs) score.loglikelihood += value;
    const std::vector<std::uint8_t>& flags = greedy[index];
    score.is_greedy = std::all_of(flags.begin(), flags.end(), [](std::uint8_t flag) { return flag != 0; });
  }
}

LoglikelihoodScorer::LoglikelihoodScorer(const LoadedModel& model, std::size_t memory)
    : impl_(std::make_unique<Impl>(model, memory)) {}
LoglikelihoodScorer::~LoglikelihoodScorer() = default;

void LoglikelihoodScorer::score(std::span<const ScoreRequest> requests,
                                const std::function<void(std::size_t, const RequestScore&)>& done,
                                const std::function<void()>& finished_round) {
  if (requests.empty()) return;
  Impl& impl = *impl_;
  const std::vector<Group> groups = impl.make_groups(requests);
  impl.make_lanes(groups, requests);
  // Each lane takes neighbours, which have the most in common.
  const std::size_t each = (groups.size() + impl.lanes.size() - 1) / impl.lanes.size();
  for (std::size_t round = 0; round < each; ++round) {
    for (std::size_t l = 0; l < impl.lanes.size(); ++l) {
      const std::size_t g = l * each + round;
      impl.lanes[l].group = g < groups.size() ? &groups[g] : nullptr;
    }
    impl.run_round(requests);
    for (const auto& [index, score] : impl.scores) done(index, score);
    finished_round();
  }
}

std::int64_t LoglikelihoodScorer::tokens_computed() const noexcept { return impl_->computed; }
std::int64_t LoglikelihoodScorer::tokens_asked() const noexcept { return impl_->asked; }

}  // namespace kedge
