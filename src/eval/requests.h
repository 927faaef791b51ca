// Text pairs -> tokens, as lm-evaluation-harness's Hugging Face backend cuts them.
//
// Spaces at a context's end go to the continuation; the pair is tokenized as one text and cut behind as many tokens as
// the context alone has. An empty context is the bos token, else the eos token.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "eval/scorer.h"
#include "generate/tokenizer.h"

namespace kedge {

class RequestEncoder {
 public:
  /// Error(unsupported) later, when an empty context meets a model without bos and eos.
  RequestEncoder(const Tokenizer& tokenizer, const LoadedModel& model);
  /// Error(bad_file): a continuation that tokenizes to nothing.
  ScoreRequest pair(const std::string& context, const std::string& continuation) const;
  /// All of a text, in windows of the model's context, each token predicted once.
  std::vector<ScoreRequest> windows(const std::string& text) const;
  std::vector<std::int32_t> prompt(const std::string& text) const;

 private:
  std::int32_t prefix() const;
  std::vector<std::int32_t> encode(const std::string& text) const;
  const Tokenizer& tokenizer_;
  std::int32_t prefix_ = -1;
  std::string prefix_text_;
  std::int64_t vocab_, max_length_;
};

}  // namespace kedge
