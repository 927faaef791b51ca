// kedge run, kedge tokenize: text from a model, and text <-> token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kedge/options.h"

namespace kedge {

/// temperature 0: greedy, and the other filters have no effect. Meaning and order as in transformers:
/// temperature, top-k, top-p, min-p.
struct SamplingOptions {
  float temperature = 0.0f;
  int top_k = 0;       ///< 0: off
  float top_p = 1.0f;  ///< in (0, 1]
  float min_p = 0.0f;  ///< in [0, 1]
  std::uint64_t seed = 0;
};

struct GenerateOptions {
  std::filesystem::path model;  ///< a model directory
  std::string prompt;           ///< empty: starts from the bos token; Error(usage) when the model has none
  /// The prompt is what a user says, and the model's chat template frames it (docs of generate/chat_template.h; no
  /// date is given). Error(unsupported) when the model has no template.
  bool chat = false;
  std::string system;                 ///< with chat: the system's message before it; empty: none
  std::int64_t max_new_tokens = 128;  ///< at least 1; fewer where the model's context ends earlier
  bool add_special_tokens = true;     ///< what the tokenizer's post-processor adds to the prompt; not to a chat
  bool ignore_eos = false;
  bool skip_special_tokens = true;   ///< in `text`
  std::int64_t prefill_batch = 512;  ///< prompt tokens per pass
  SamplingOptions sampling;
  /// Called with each new stretch of text as soon as it is complete UTF-8; joined they are GenerateResult::text.
  std::function<void(std::string_view)> on_text;
  RuntimeOptions runtime;
};

struct GenerateResult {
  std::string text;  ///< without the prompt
  std::vector<std::int32_t> prompt_ids;
  std::vector<std::int32_t> token_ids;  ///< the new ones; an end-of-text token included
  std::string finish_reason;            ///< "stop": an end-of-text token; "length": max_new_tokens or the context's end
  double load_seconds = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;       ///< of all passes after the prefill: one less than the new tokens
  std::uint64_t weight_bytes = 0;  ///< packed, in memory
  std::uint64_t kv_bytes = 0;
  std::string isa;  ///< the one that runtime.isa came out as
  int threads = 1;
  std::string explain;  ///< which kernel serves each weight, and why others were refused

  double prefill_tokens_per_second() const noexcept;
  double decode_tokens_per_second() const noexcept;  ///< 0 when there was no decode pass
};

/// Errors: usage (a prompt that does not fit the context, values out of range), interrupted, else as loading a model.
GenerateResult generate(const GenerateOptions& options);

struct TokenizeResult {
  std::vector<std::int32_t> ids;
  std::vector<std::string> tokens;  ///< as in the vocabulary
};

/// model: a directory with a tokenizer.json; no weights are needed.
TokenizeResult tokenize(const std::filesystem::path& model, std::string_view text, bool add_special_tokens = false);
/// Error(usage): an id that is no token.
std::string detokenize(const std::filesystem::path& model, const std::vector<std::int32_t>& ids,
                       bool skip_special_tokens = false);

}  // namespace kedge
