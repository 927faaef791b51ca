// Byte-pair encoding of one piece (Sennrich et al. 2016): the pair of lowest rank is merged first, the leftmost of
// equal ones; a heap keeps this at n log n for a piece of n characters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kedge {

struct BpeOptions {
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;  ///< unknown characters become <0xXX> tokens
  bool ignore_merges = false;  ///< a piece that is a token is taken as it is
};

class Bpe {
 public:
  using Vocab = std::unordered_map<std::string_view, std::int32_t>;
  using Merges = std::vector<std::pair<std::string, std::string>>;
  /// vocab: outlives this, and so do its keys. Error(bad_file): a merge of tokens that the vocabulary lacks.
  Bpe(const Vocab& vocab, const Merges& merges, BpeOptions options, const std::string& where);

  struct Scratch {
    struct Symbol {
      std::int32_t id, previous, next;
    };
    struct Candidate {
      std::uint64_t order;  // rank << 32 | position
      std::int32_t id;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };
  /// Appends the ids of a piece (valid UTF-8, under 2^31 bytes).
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;

 private:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };
  struct Slot {
    std::uint64_t pair = empty_slot;
    Merge merge{};
  };
  static constexpr std::uint64_t empty_slot = ~std::uint64_t{0};

  void insert(std::uint64_t pair, Merge merge);
  const Merge* find(std::int32_t left, std::int32_t right) const noexcept;
  std::int32_t char_id(std::string_view bytes) const noexcept;
  void to_symbols(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const;

  const Vocab& vocab_;
  BpeOptions options_;
  std::int32_t unk_id_ = -1;
  std::vector<std::int32_t> byte_ids_;      // [256] of <0xXX>, -1 when absent; empty without byte_fallback
  std::vector<std::int32_t> two_byte_ids_;  // [0x800] ids of the characters of one or two bytes, -1 when absent
  std::vector<Slot> slots_;                 // open addressing, a power of two
};

}  // namespace kedge
