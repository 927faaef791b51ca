// Text files -> rows of tokens, the same way for perplexity, audit and trace (calibration packs: ptq/calibration_data.h).
//
// Each file is tokenized as one string without special tokens and cut into rows of seqlen tokens; the remainder is
// dropped, unless it is all there is. Each row is a sequence of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "generate/tokenizer.h"

namespace kedge {

struct TokenRows {
  std::vector<std::vector<std::int32_t>> rows;
  std::vector<int> source;         ///< [rows] index into names
  std::vector<std::string> names;  ///< the files
  std::int64_t tokens_dropped = 0;
  std::string content_hash;  ///< SHA-256 of the files' bytes, in order
  std::int64_t tokens() const noexcept;
};

/// limit: rows at most, 0 for all, taken evenly from the front of each file in order. Error(usage): an empty text,
/// seqlen < 2, fewer than two tokens.
TokenRows read_token_rows(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files,
                          std::int64_t seqlen, std::int64_t limit = 0);

/// The bytes of a text file, at most 1 GiB. Error(usage) when it is empty; else as read_file.
std::string read_text(const std::filesystem::path& file);

/// Error(mismatch): an id that the model's vocabulary does not have.
void check_token_ids(std::span<const std::vector<std::int32_t>> rows, std::int64_t vocab_size);

}  // namespace kedge
