#include "eval/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/interrupt.h"
#include "generate/sampler.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::int64_t kMaxLanes = 32;
constexpr std::int64_t kPrefill = 512;  // tokens of one pass

// Up to the first stop text; `found` says whether there was one.
std::string cut(const std::string& text, const std::vector<std::string>& until, bool& found) {
  std::size_t end = text.size();
  for (const std::string& stop : until) {
    if (!stop.empty()) end = std::min(end, text.find(stop));
  }
  found = end < text.size();
  return text.substr(0, end);
}

}  // namespace

struct TextGenerator::Impl {
  struct Lane {
    Lane(const ModelSpec& spec, std::int64_t capacity) : state(spec, capacity) {}
    SequenceState state;
    std::size_t request = 0;
    bool busy = false;
    std::vector<std::int32_t> tokens;  // written so far
  };

  Impl(const LoadedModel& loaded, const Tokenizer& words, std::size_t bytes)
      : model(loaded), tokenizer(words), memory(bytes), eos(eos_token_ids(loaded.checkpoint)) {}

  const LoadedModel& model;
  const Tokenizer& tokenizer;
  std::size_t memory;
  std::vector<std::int32_t> eos;
  Arena scratch;
  std::vector<Lane> lanes;
  std::vector<float> logits;  // [lanes, vocab]

  void make_lanes(std::span<const TextRequest> requests);
  void begin(Lane& lane, const TextRequest& request);
  void step(std::span<const TextRequest> requests, const std::function<void(std::size_t, const std::string&)>& done);
  /// Adds a token; true when the text is complete.
  bool push(Lane& lane, std::int32_t token, const TextRequest& request, std::string& text) const;
  void forward(std::span<const Segment> segments, LogitRows rows);
};

void TextGenerator::Impl::make_lanes(std::span<const TextRequest> requests) {
  const std::int64_t longest = model.model.spec().max_position_embeddings;
  std::int64_t capacity = 1;
  for (const TextRequest& request : requests) {
    if (request.max_new_tokens >= longest) {
      throw Error(ErrorCode::usage, fmt::format("a task asks for {} new tokens", request.max_new_tokens),
                  fmt::format("fewer than {}, the model's context", longest));
    }
    capacity = std::max(capacity, static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens);
  }
  capacity = std::min(capacity, longest);
  const std::size_t each = std::max<std::size_t>(1, SequenceState::bytes_for(model.model.spec(), capacity));
  const std::int64_t fitting = std::clamp<std::int64_t>(static_cast<std::int64_t>(memory / each), 1, kMaxLanes);
  lanes.clear();
  for (std::int64_t i = 0; i < std::min(fitting, static_cast<std::int64_t>(requests.size())); ++i) {
    lanes.emplace_back(model.model.spec(), capacity);
  }
  logits.resize(lanes.size() * static_cast<std::size_t>(model.model.spec().vocab_size));
}

void TextGenerator::Impl::forward(std::span<const Segment> segments, LogitRows rows) {
  throw_if_interrupted();
  const ArenaScope scope(scratch);
  const ExecContext ctx{model.threads, scratch, nullptr};
  model.model.forward(ctx, segments, rows, rows == LogitRows::none ? nullptr : logits.data());
}

// All of the prompt but its last token, which the first step feeds.
void TextGenerator::Impl::begin(Lane& lane, const TextRequest& request) {
  lane.state.truncate(0);
  const auto room = static_cast<std::size_t>(model.model.spec().max_position_embeddings - request.max_new_tokens);
  std::span<const std::int32_t> prompt(request.prompt);
  if (prompt.size() > room) prompt = prompt.last(room);
  lane.tokens = {prompt.back()};
  prompt = prompt.first(prompt.size() - 1);
  while (!prompt.empty()) {
    const std::size_t n = std::min(prompt.size(), static_cast<std::size_t>(kPrefill));
    const Segment segment{&lane.state, prompt.first(n)};
    forward({&segment, 1}, LogitRows::none);
    prompt = prompt.subspan(n);
  }
  lane.busy = true;
}

bool TextGenerator::Impl::push(Lane& lane, std::int32_t token, const TextRequest& request, std::string& text) const {
  const bool ended = std::find(eos.begin(), eos.end(), token) != eos.end();
  if (!ended) lane.tokens.push_back(token);
  bool stopped = false;
  text = cut(tokenizer.decode(std::span(lane.tokens).subspan(1), true), *request.until, stopped);
  return ended || stopped || static_cast<std::int64_t>(lane.tokens.size()) > request.max_new_tokens;
}

void TextGenerator::Impl::step(std::span<const TextRequest> requests,
                               const std::function<void(std::size_t, const std::string&)>& done) {
  std::vector<Segment> segments;
  std::vector<Lane*> busy;
  for (Lane& lane : lanes) {
    if (!lane.busy) continue;
    busy.push_back(&lane);
    segments.push_back({&lane.state, std::span(lane.tokens).last(1)});
  }
  forward(segments, LogitRows::last_of_each_segment);
  const auto vocab = static_cast<std::size_t>(model.model.spec().vocab_size);
  for (std::size_t i = 0; i < busy.size(); ++i) {
    Lane& lane = *busy[i];
    const std::int32_t token = argmax(std::span<const float>(logits).subspan(i * vocab, vocab));
    std::string text;
    if (!push(lane, token, requests[lane.request], text)) continue;
    lane.busy = false;
    done(lane.request, text);
  }
}

TextGenerator::TextGenerator(const LoadedModel& model, const Tokenizer& tokenizer, std::size_t memory)
    : impl_(std::make_unique<Impl>(model, tokenizer, memory)) {}
TextGenerator::~TextGenerator() = default;

void TextGenerator::generate(std::span<const TextRequest> requests,
                             const std::function<void(std::size_t, const std::string&)>& done) {
  if (requests.empty()) return;
  impl_->make_lanes(requests);
  std::size_t next = 0, running = 0;
  const auto finished = [&](std::size_t index, const std::string& text) {
    --running;
    done(index, text);
  };
  while (next < requests.size() || running > 0) {
    for (Impl::Lane& lane : impl_->lanes) {
      if (lane.busy || next == requests.size()) continue;
      lane.request = next++;
      impl_->begin(lane, requests[lane.request]);
      ++running;
    }
    impl_->step(requests, finished);
  }
}

}  // namespace kedge
