// kedge tokenizer train: a byte-level BPE tokenizer from texts, as a tokenizer.json that Hugging Face's tokenizers reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kedge {

struct TrainTokenizerOptions {
  /// Text files, UTF-8; they are cut into lines, ends included, as tokenizers' `train` does. Of .jsonl files the member
  /// `field` of each line, in one piece.
  std::vector<std::filesystem::path> texts;
  std::string field = "text";
  std::filesystem::path out;        ///< a folder; must not hold a tokenizer.json yet
  std::int64_t vocab_size = 30000;  ///< tokens at most; at least the special ones and the 256 bytes
  std::int64_t min_frequency = 0;   ///< a pair that is rarer is not merged
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  ///< the first is bos, eos and pad
  std::string pattern;  ///< a regular expression whose matches are words; empty: GPT-2's
};

struct TrainTokenizerReport {
  std::int64_t vocab_size = 0, merges = 0;
  std::int64_t words = 0;         ///< different ones
  std::int64_t bytes = 0;         ///< of text read
  double bytes_per_token = 0;     ///< of the texts themselves
  std::string content_hash;       ///< Tokenizer::content_hash
  double seconds = 0;
};

/// Writes out/tokenizer.json and out/tokenizer_config.json. The vocabulary and merges are those of the tokenizers library
/// (BpeTrainer with ByteLevel's alphabet). Throws Error: usage (a vocabulary too small, no text, an empty text, a special
/// token twice), bad_file (not UTF-8, a bad line), exists, io, interrupted.
TrainTokenizerReport train_tokenizer(const TrainTokenizerOptions& options);

}  // namespace kedge
