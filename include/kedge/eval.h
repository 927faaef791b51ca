// kedge perplexity: how well a model predicts a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kedge/options.h"

namespace kedge {

/// Each text is tokenized as one string without special tokens and cut into sequences of `seqlen` tokens; the
/// remainder is dropped, unless it is all there is. Each sequence stands on its own; all its tokens but the first
/// are scored.
struct PerplexityOptions {
  std::filesystem::path model;               ///< a model directory
  std::vector<std::filesystem::path> texts;  ///< UTF-8 files
  std::int64_t seqlen = 256;                 ///< at most the model's max_position_embeddings
  std::int64_t limit = 0;                    ///< sequences at most; 0: all
  RuntimeOptions runtime;
};

struct SequenceScore {
  std::string text;         ///< the file it is from
  std::int64_t scored = 0;  ///< tokens
  std::int64_t bytes = 0;   ///< of text behind these tokens
  double nll = 0;           ///< sum of -ln p
};

struct PerplexityResult {
  std::int64_t sequences = 0, tokens_scored = 0, tokens_dropped = 0, bytes_scored = 0;
  double mean_nll = 0;               ///< nats per token
  double standard_error = 0;         ///< of mean_nll, over sequences; NaN for a single sequence
  double nll_low = 0, nll_high = 0;  ///< 95 % interval of mean_nll
  double ppl = 0;                    ///< exp(mean_nll)
  double ppl_low = 0, ppl_high = 0;  ///< exp of the interval's ends
  double bits_per_byte = 0;
  std::vector<SequenceScore> samples;
  PerplexityOptions options;
  std::string isa;  ///< the one that runtime.isa came out as
  int threads = 1;
  double load_seconds = 0, forward_seconds = 0;
  std::string explain;  ///< which kernel serves each weight
};

/// Errors: usage (an empty text, fewer than two tokens, seqlen above the context), else as loading a model.
PerplexityResult perplexity(const PerplexityOptions& options);

/// A few aligned lines for a terminal.
std::string perplexity_text(const PerplexityResult& result);
/// Envelope kedge.perplexity/1 (docs/formats/perplexity.md). Hashes the model's files, which reads them once more.
std::string perplexity_json(const PerplexityResult& result);

}  // namespace kedge
