#include "generate/tokenizer/bpe.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

std::size_t slot_of(std::uint64_t pair, std::size_t slots) {
  std::uint64_t h = pair * 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio
  h ^= h >> 32;
  return static_cast<std::size_t>(h * 0xD6E8FEB86659FD93ull >> 20) & (slots - 1);
}

std::int32_t id_of(const Bpe::Vocab& vocab, std::string_view token) {
  const auto it = vocab.find(token);
  return it == vocab.end() ? -1 : it->second;
}

}  // namespace

Bpe::Bpe(const Vocab& vocab, const Merges& merges, BpeOptions options, const std::string& where)
    : vocab_(vocab), options_(std::move(options)) {
  KEDGE_CHECK(merges.size() < 0xFFFFFFFFu);
  slots_.resize(std::bit_ceil(merges.size() * 2 + 16));
  std::string merged;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    merged.assign(left).append(right);
    const std::int32_t a = id_of(vocab_, left), b = id_of(vocab_, right), id = id_of(vocab_, merged);
    if (a < 0 || b < 0 || id < 0) {
      throw Error(ErrorCode::bad_file, where + ": merge " + std::to_string(rank) + " ('" + left + "' and '" + right +
                                           "') names a token that the vocabulary lacks");
    }
    insert(pair_key(a, b), {static_cast<std::uint32_t>(rank), id});
  }
  if (options_.unk_token.has_value()) {
    unk_id_ = id_of(vocab_, *options_.unk_token);
    if (unk_id_ < 0)
      throw Error(ErrorCode::bad_file, where + ": the vocabulary lacks the unk_token '" + *options_.unk_token + "'");
  }
  if (options_.byte_fallback) {
    constexpr const char* digits = "0123456789ABCDEF";
    for (int b = 0; b < 256; ++b)
      byte_ids_.push_back(id_of(vocab_, std::string("<0x") + digits[b / 16] + digits[b % 16] + ">"));
  }
  std::string character;
  for (char32_t c = 0; c < 0x800; ++c) {
    character.clear();
    unicode::append(character, c);
    two_byte_ids_.push_back(id_of(vocab_, character));
  }
}

void Bpe::insert(std::uint64_t pair, Merge merge) {
  std::size_t i = slot_of(pair, slots_.size());
  while (slots_[i].pair != empty_slot && slots_[i].pair != pair) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {pair, merge};  // of equal pairs the last counts, as in tokenizers
}

const Bpe::Merge* Bpe::find(std::int32_t left, std::int32_t right) const noexcept {
  const std::uint64_t pair = pair_key(left, right);
  std::size_t i = slot_of(pair, slots_.size());
  while (slots_[i].pair != empty_slot) {
    if (slots_[i].pair == pair) return &slots_[i].merge;
    i = (i + 1) & (slots_.size() - 1);
  }
  return nullptr;
}

std::int32_t Bpe::char_id(std::string_view bytes) const noexcept {
  if (bytes.size() > 2) return id_of(vocab_, bytes);
  std::size_t pos = 0;
  return two_byte_ids_[unicode::next(bytes, pos)];
}

void Bpe::to_symbols(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](std::int32_t id) {
    const auto n = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, n - 1, n + 1});
  };
  bool unknown = false;  // an unk token is due
  for (std::size_t pos = 0; pos < piece.size();) {
    const std::size_t begin = pos;
    unicode::next(piece, pos);
    const std::string_view bytes = piece.substr(begin, pos - begin);
    const std::int32_t id = char_id(bytes);
    if (id >= 0) {
      if (unknown) add(unk_id_);
      unknown = false;
      add(id);
      continue;
    }
    const auto byte_id = [&](char b) { return byte_ids_[static_cast<std::uint8_t>(b)]; };
    if (options_.byte_fallback && std::all_of(bytes.begin(), bytes.end(), [&](char b) { return byte_id(b) >= 0; })) {
      // A due unk token stays due behind these bytes: tokenizers does it so.
      for (const char b : bytes) add(byte_id(b));
    } else if (unk_id_ >= 0) {
      if (unknown && !options_.fuse_unk) add(unk_id_);
      unknown = true;
    }
  }
  if (unknown) add(unk_id_);
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const {
  KEDGE_CHECK(piece.size() < 0x7FFFFFFFu);
  if (options_.ignore_merges) {
    if (const std::int32_t id = id_of(vocab_, piece); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  to_symbols(piece, symbols);
  heap.clear();
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) { return a.order > b.order; };
  const auto candidate = [&](std::int32_t left, std::int32_t right) {
    const Merge* merge = find(symbols[left].id, symbols[right].id);
    if (merge != nullptr)
      heap.push_back({std::uint64_t{merge->rank} << 32 | static_cast<std::uint32_t>(left), merge->id});
    return merge != nullptr;
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
    candidate(static_cast<std::int32_t>(i), static_cast<std::int32_t>(i + 1));
  std::make_heap(heap.begin(), heap.end(), later);

  constexpr std::int32_t gone = -1;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate top = heap.back();
    heap.pop_back();
    const auto at = static_cast<std::int32_t>(top.order & 0xFFFFFFFFu);
    if (symbols[at].id == gone || symbols[at].next < 0) continue;
    const std::int32_t right = symbols[at].next;
    // A candidate of an earlier state still counts when the pair here now gives the same token.
    const Merge* merge = find(symbols[at].id, symbols[right].id);
    if (merge == nullptr || merge->id != top.id) continue;
    const std::int32_t after = symbols[right].next;
    symbols[at].id = top.id;
    symbols[at].next = after;
    symbols[right].id = gone;
    if (after >= 0) symbols[after].previous = at;
    if (symbols[at].previous >= 0 && candidate(symbols[at].previous, at))
      std::push_heap(heap.begin(), heap.end(), later);
    if (after >= 0 && candidate(at, after)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (const auto& symbol : symbols) {
    if (symbol.id != gone) out.push_back(symbol.id);
  }
}

}  // namespace kedge
