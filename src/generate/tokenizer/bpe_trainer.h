// Learns a byte-pair encoding (Sennrich et al. 2016): the most frequent pair of neighbours becomes a token, again and
// again. Ties go to the pair of lower ids, so that the result is that of the `tokenizers` library.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kedge {

using WordCounts = std::unordered_map<std::string, std::int64_t>;  ///< pieces of text, valid UTF-8

struct BpeTrainerOptions {
  std::int64_t vocab_size = 0;     ///< tokens at most, special ones and the alphabet included
  std::int64_t min_frequency = 0;  ///< a rarer pair is not merged
  std::vector<std::string> special_tokens;  ///< get the first ids
  std::vector<std::string> alphabet;        ///< characters that get an id even where no word has them
  std::function<void(std::int64_t tokens)> progress;  ///< now and then; null: none
};

struct TrainedBpe {
  std::vector<std::string> vocab;  ///< by id: special tokens, characters in the order of code points, merged tokens
  std::vector<std::pair<std::string, std::string>> merges;
};

TrainedBpe train_bpe(const WordCounts& words, const BpeTrainerOptions& options);

}  // namespace kedge
