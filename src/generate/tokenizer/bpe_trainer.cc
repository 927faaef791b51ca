#include "generate/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <unordered_set>

#include "base/check.h"

namespace kedge {
namespace {

using Id = std::uint32_t;
using Pair = std::uint64_t;  // left id << 32 | right id: the order of pairs
using Positions = std::unordered_set<std::uint32_t>;

Pair pair_of(Id left, Id right) { return std::uint64_t{left} << 32 | right; }

// Bytes of the character that begins with `first`, in valid UTF-8.
std::size_t char_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

template <class Take>
void each_char(std::string_view text, Take take) {
  for (std::size_t i = 0; i < text.size(); i += char_bytes(text[i])) take(text.substr(i, char_bytes(text[i])));
}

struct Word {
  std::vector<Id> ids;
  std::int64_t count;
};

struct Candidate {
  std::int64_t count;
  Pair pair;
  Positions words;
  // The heap's top: the highest count, of equal ones the lowest pair.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class BpeTrainer {
 public:
  BpeTrainer(const WordCounts& words, const BpeTrainerOptions& options) : options_(options) {
    for (const std::string& token : options.special_tokens) id_of(token);
    add_alphabet(words);
    add_words(words);
  }

  TrainedBpe run() {
    while (std::int64_t(out_.vocab.size()) < options_.vocab_size && !heap_.empty()) {
      Candidate top = pop();
      const std::int64_t now = counts_[top.pair];
      if (top.count != now) {
        top.count = now;
        push(std::move(top));
        continue;
      }
      if (now < 1 || now < options_.min_frequency) break;
      merge(top);
      if (options_.progress && out_.merges.size() % 256 == 0) options_.progress(std::int64_t(out_.vocab.size()));
    }
    drop_repeated_merges();
    return std::move(out_);
  }

 private:
  Id id_of(const std::string& token) {
    const auto [at, added] = ids_.try_emplace(token, static_cast<Id>(out_.vocab.size()));
    if (added) out_.vocab.push_back(token);
    return at->second;
  }

  // UTF-8 sorts as code points do.
  void add_alphabet(const WordCounts& words) {
    std::set<std::string, std::less<>> characters(options_.alphabet.begin(), options_.alphabet.end());
    for (const auto& [word, count] : words) {
      each_char(word, [&](std::string_view character) {
        if (!characters.contains(character)) characters.emplace(character);
      });
    }
    for (const std::string& character : characters) id_of(character);
  }

  void add_words(const WordCounts& words) {
    KEDGE_CHECK(words.size() < (1ull << 32));
    std::unordered_map<Pair, Positions> where;
    words_.reserve(words.size());
    for (const auto& [text, count] : words) {
      Word word{{}, count};
      each_char(text, [&](std::string_view character) { word.ids.push_back(ids_.at(std::string(character))); });
      for (std::size_t i = 1; i < word.ids.size(); ++i) {
        const Pair pair = pair_of(word.ids[i - 1], word.ids[i]);
        counts_[pair] += count;
        where[pair].insert(static_cast<std::uint32_t>(words_.size()));
      }
      words_.push_back(std::move(word));
    }
    for (auto& [pair, positions] : where) push({counts_[pair], pair, std::move(positions)});
  }

  void push(Candidate candidate) {
    heap_.push_back(std::move(candidate));
    std::push_heap(heap_.begin(), heap_.end());
  }

  Candidate pop() {
    std::pop_heap(heap_.begin(), heap_.end());
    Candidate top = std::move(heap_.back());
    heap_.pop_back();
    return top;
  }

  void merge(const Candidate& top) {
    const Id left = static_cast<Id>(top.pair >> 32), right = static_cast<Id>(top.pair);
    const Id merged = id_of(out_.vocab[left] + out_.vocab[right]);
    out_.merges.emplace_back(out_.vocab[left], out_.vocab[right]);
    std::unordered_map<Pair, Positions> grown;
    for (const std::uint32_t position : top.words) merge_in(words_[position], position, left, right, merged, grown);
    for (auto& [pair, positions] : grown) {
      if (counts_[pair] > 0) push({counts_[pair], pair, std::move(positions)});
    }
  }

  // From the left, in place. A pair's own count is left as it was: it does not come up again.
  void merge_in(Word& word, std::uint32_t position, Id left, Id right, Id merged,
                std::unordered_map<Pair, Positions>& grown) {
    const auto gain = [&](Pair pair) {
      counts_[pair] += word.count;
      grown[pair].insert(position);
    };
    std::size_t to = 0;
    for (std::size_t from = 0; from < word.ids.size(); ++to) {
      const bool here = word.ids[from] == left && from + 1 < word.ids.size() && word.ids[from + 1] == right;
      if (!here) {
        word.ids[to] = word.ids[from++];
        continue;
      }
      if (to > 0) {
        counts_[pair_of(word.ids[to - 1], left)] -= word.count;
        gain(pair_of(word.ids[to - 1], merged));
      }
      from += 2;
      word.ids[to] = merged;
      if (from < word.ids.size()) {
        counts_[pair_of(right, word.ids[from])] -= word.count;
        gain(pair_of(merged, word.ids[from]));
      }
    }
    word.ids.resize(to);
  }

  // A token that two pairs make can bring a pair up twice; its later place counts.
  void drop_repeated_merges() {
    std::set<std::pair<std::string, std::string>> seen;
    std::vector<std::pair<std::string, std::string>> kept;
    for (std::size_t i = out_.merges.size(); i-- > 0;) {
      if (seen.insert(out_.merges[i]).second) kept.push_back(std::move(out_.merges[i]));
    }
    std::reverse(kept.begin(), kept.end());
    out_.merges = std::move(kept);
  }

  const BpeTrainerOptions& options_;
  TrainedBpe out_;
  std::unordered_map<std::string, Id> ids_;
  std::vector<Word> words_;
  std::unordered_map<Pair, std::int64_t> counts_;
  std::vector<Candidate> heap_;
};

}  // namespace

TrainedBpe train_bpe(const WordCounts& words, const BpeTrainerOptions& options) {
  return BpeTrainer(words, options).run();
}

}  // namespace kedge
