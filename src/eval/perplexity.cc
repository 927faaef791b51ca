#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/interrupt.h"
#include "base/log.h"
#include "generate/corpus.h"
#include "generate/score.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "kedge/eval.h"
#include "stats/intervals.h"

namespace kedge {
namespace {

// Logits of one pass: 64 MiB, but between 16 and 2048 tokens.
std::int64_t tokens_per_pass(std::int64_t vocab_size) {
  const std::int64_t fitting = (std::int64_t{64} << 20) / (vocab_size * static_cast<std::int64_t>(sizeof(float)));
  return std::clamp<std::int64_t>(fitting, 16, 2048);
}

// Scores rows several at a time, each with its own past, in chunks of so many tokens that the logits stay small.
class Scorer {
 public:
  Scorer(const LoadedModel& model, std::int64_t seqlen)
      : model_(model), vocab_(model.model.spec().vocab_size), pass_(tokens_per_pass(vocab_)) {
    batch_ = std::max<std::int64_t>(1, pass_ / (seqlen - 1));
    chunk_ = std::min(pass_, seqlen - 1);
    logits_.resize(static_cast<std::size_t>(batch_ * chunk_ * vocab_));
    for (std::int64_t i = 0; i < batch_; ++i) states_.emplace_back(model.model.spec(), seqlen - 1);
  }

  std::int64_t batch() const noexcept { return batch_; }

  /// -ln p of tokens 1.. of each row; nll[i] has one value less than rows[i].
  void score(std::span<const std::vector<std::int32_t>> rows, std::span<std::vector<double>> nll) {
    for (std::size_t r = 0; r < rows.size(); ++r) {
      states_[r].truncate(0);
      nll[r].resize(rows[r].size() - 1);
    }
    for (std::int64_t begin = 0;; begin += chunk_) {
      throw_if_interrupted();
      segments_.clear();
      targets_.clear();
      for (std::size_t r = 0; r < rows.size(); ++r) {
        // The last token is predicted but predicts nothing.
        const auto fed = static_cast<std::int64_t>(rows[r].size()) - 1;
        const std::int64_t n = std::min(chunk_, fed - begin);
        if (n <= 0) continue;
        segments_.push_back(
            {&states_[r], std::span(rows[r]).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n))});
        for (std::int64_t i = begin; i < begin + n; ++i) {
          targets_.push_back({rows[r][static_cast<std::size_t>(i + 1)], &nll[r][static_cast<std::size_t>(i)]});
        }
      }
      if (segments_.empty()) return;
      forward_and_score();
    }
  }

 private:
  struct Target {
    std::int32_t token;
    double* nll;
  };

  void forward_and_score() {
    const ArenaScope scope(scratch_);
    const ExecContext ctx{model_.threads, scratch_, nullptr};
    model_.model.forward(ctx, segments_, LogitRows::all, logits_.data());
    const Isa isa = model_.model.options().isa;
    model_.threads.parallel_for(
        static_cast<std::int64_t>(targets_.size()), 8, [&](std::int64_t begin, std::int64_t end, int) {
          for (std::int64_t i = begin; i < end; ++i) {
            const Target& target = targets_[static_cast<std::size_t>(i)];
            const std::span<const float> row(logits_.data() + i * vocab_, static_cast<std::size_t>(vocab_));
            *target.nll = negative_log_likelihood(row, target.token, isa);
          }
        });
  }

  const LoadedModel& model_;
  std::int64_t vocab_, pass_, batch_ = 1, chunk_ = 1;
  Arena scratch_;
  std::vector<SequenceState> states_;
  std::vector<float> logits_;  // [batch * chunk, vocab]
  std::vector<Segment> segments_;
  std::vector<Target> targets_;
};

std::int64_t scored_bytes(const Tokenizer& tokenizer, const std::vector<std::int32_t>& row) {
  std::size_t bytes = 0;
  for (std::size_t i = 1; i < row.size(); ++i) bytes += tokenizer.token_bytes(row[i]).size();
  return static_cast<std::int64_t>(bytes);
}

void summarize(PerplexityResult& result) {
  std::vector<double> nll, tokens;
  double total = 0;
  for (const SequenceScore& sample : result.samples) {
    nll.push_back(sample.nll);
    tokens.push_back(static_cast<double>(sample.scored));
    total += sample.nll;
    result.tokens_scored += sample.scored;
    result.bytes_scored += sample.bytes;
  }
  result.sequences = static_cast<std::int64_t>(result.samples.size());
  result.mean_nll = total / static_cast<double>(result.tokens_scored);
  result.ppl = std::exp(result.mean_nll);
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  result.standard_error = result.nll_low = result.nll_high = unknown;
  if (result.sequences > 1) {
    const Interval interval = ratio_interval(nll, tokens);
    result.standard_error = interval.standard_error;
    result.nll_low = interval.low;
    result.nll_high = interval.high;
  }
  result.ppl_low = std::exp(result.nll_low);
  result.ppl_high = std::exp(result.nll_high);
  result.bits_per_byte =
      result.bytes_scored > 0 ? total / std::numbers::ln2 / static_cast<double>(result.bytes_scored) : unknown;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

PerplexityResult perplexity(const PerplexityOptions& options) {
  PerplexityResult result;
  result.options = options;
  const LoadOptions load_options = make_load_options(options.runtime);
  auto start = std::chrono::steady_clock::now();
  ThreadPool threads(options.runtime.threads);
  const Tokenizer tokenizer = Tokenizer::open(options.model);
  const TokenRows rows = read_token_rows(tokenizer, options.texts, options.seqlen, options.limit);
  const LoadedModel model = load_model(options.model, load_options, threads);
  const ModelSpec& spec = model.model.spec();
  spec.require_causal("perplexity is of next-token predictions");
  if (options.seqlen > spec.max_position_embeddings) {
    throw Error(ErrorCode::usage, "a sequence length of " + std::to_string(options.seqlen),
                "at most " + std::to_string(spec.max_position_embeddings) + ", the model's context");
  }
  check_token_ids(rows.rows, spec.vocab_size);
  result.isa = isa_name(load_options.isa);
  result.threads = threads.size();
  result.explain = model.model.explain();
  result.tokens_dropped = rows.tokens_dropped;
  result.load_seconds = seconds_since(start);

  start = std::chrono::steady_clock::now();
  std::size_t longest = 0;
  for (const auto& row : rows.rows) longest = std::max(longest, row.size());
  Scorer scorer(model, static_cast<std::int64_t>(longest));
  std::vector<std::vector<double>> nll(rows.rows.size());
  Progress progress("perplexity", rows.tokens(), "tokens");
  std::int64_t done = 0;
  for (std::size_t begin = 0; begin < rows.rows.size(); begin += static_cast<std::size_t>(scorer.batch())) {
    const std::size_t n = std::min(static_cast<std::size_t>(scorer.batch()), rows.rows.size() - begin);
    scorer.score(std::span(rows.rows).subspan(begin, n), std::span(nll).subspan(begin, n));
    for (std::size_t r = begin; r < begin + n; ++r) {
      double sum = 0;
      for (const double value : nll[r]) sum += value;
      result.samples.push_back({.text = rows.names[static_cast<std::size_t>(rows.source[r])],
                                .scored = static_cast<std::int64_t>(nll[r].size()),
                                .bytes = scored_bytes(tokenizer, rows.rows[r]),
                                .nll = sum});
      done += static_cast<std::int64_t>(rows.rows[r].size());
    }
    progress.update(done);
  }
  progress.finish();
  result.forward_seconds = seconds_since(start);
  summarize(result);
  return result;
}

}  // namespace kedge
