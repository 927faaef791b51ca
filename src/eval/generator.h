// Texts that a model writes, several at a time, greedily, up to a stop text.
//
// Each prompt has a lane with a state of its own; a lane whose text is complete takes the next prompt. Under consistent
// numerics the texts are those that prompts one at a time give.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/session.h"

namespace kedge {

struct TextRequest {
  std::vector<std::int32_t> prompt;  ///< one that does not fit beside max_new_tokens loses its beginning
  const std::vector<std::string>* until = nullptr;
  std::int64_t max_new_tokens = 256;
};

class TextGenerator {
 public:
  /// memory: bytes that the lanes' keys and values may take.
  TextGenerator(const LoadedModel& model, const Tokenizer& tokenizer, std::size_t memory = std::size_t{1} << 30);
  ~TextGenerator();
  /// Calls done(index, text) as texts are complete, in no particular order. The text ends before the first stop text,
  /// an end-of-text token, or behind max_new_tokens. Error(usage): max_new_tokens leaves no room for a prompt.
  void generate(std::span<const TextRequest> requests,
                const std::function<void(std::size_t, const std::string&)>& done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
