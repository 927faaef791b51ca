#include "generate/corpus.h"

#include <algorithm>

#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::uint64_t max_text_bytes = 1ull << 30;

// Rows to take of each file: one more from each in turn until the limit is reached.
std::vector<std::int64_t> shares(const std::vector<std::int64_t>& available, std::int64_t limit) {
  if (limit == 0) return available;
  std::vector<std::int64_t> taken(available.size(), 0);
  bool any = true;
  while (limit > 0 && any) {
    any = false;
    for (std::size_t f = 0; f < available.size() && limit > 0; ++f) {
      if (taken[f] == available[f]) continue;
      ++taken[f];
      --limit;
      any = true;
    }
  }
  return taken;
}

}  // namespace

std::int64_t TokenRows::tokens() const noexcept {
  std::int64_t total = 0;
  for (const auto& row : rows) total += static_cast<std::int64_t>(row.size());
  return total;
}

TokenRows read_token_rows(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files,
                          std::int64_t seqlen, std::int64_t limit) {
  if (files.empty()) throw Error(ErrorCode::usage, "no text was given", "at least one text file");
  if (seqlen < 2) throw Error(ErrorCode::usage, "a sequence length of " + std::to_string(seqlen), "at least 2 tokens");
  if (limit < 0)
    throw Error(ErrorCode::usage, "a limit of " + std::to_string(limit) + " sequences", "0 (all) or above");
  TokenRows result;
  Sha256 sha;
  std::vector<std::vector<std::int32_t>> ids;
  std::vector<std::int64_t> full_rows;
  for (const auto& file : files) {
    throw_if_interrupted();
    const std::string text = read_text(file);
    sha.update(text);
    result.names.push_back(file.string());
    ids.push_back(tokenizer.encode(text));
    full_rows.push_back(static_cast<std::int64_t>(ids.back().size()) / seqlen);
  }
  result.content_hash = sha.hex();
  const bool only_remainders = std::all_of(full_rows.begin(), full_rows.end(), [](std::int64_t n) { return n == 0; });
  std::vector<std::int64_t> available = full_rows;
  if (only_remainders) {
    for (std::size_t f = 0; f < ids.size(); ++f) available[f] = ids[f].size() >= 2 ? 1 : 0;
  }
  const std::vector<std::int64_t> taken = shares(available, limit);
  for (std::size_t f = 0; f < ids.size(); ++f) {
    const auto length = only_remainders ? static_cast<std::int64_t>(ids[f].size()) : seqlen;
    for (std::int64_t r = 0; r < taken[f]; ++r) {
      const auto begin = ids[f].begin() + r * seqlen;
      result.rows.emplace_back(begin, begin + length);
      result.source.push_back(static_cast<int>(f));
    }
    result.tokens_dropped += static_cast<std::int64_t>(ids[f].size()) - taken[f] * length;
  }
  if (result.rows.empty()) {
    throw Error(ErrorCode::usage, "the text gives fewer than two tokens",
                "two tokens or more: the first predicts the second");
  }
  return result;
}

std::string read_text(const std::filesystem::path& file) {
  std::string text = read_file(file, max_text_bytes);
  if (text.empty()) throw Error(ErrorCode::usage, "the text " + file.string() + " is empty", "some text");
  return text;
}

void check_token_ids(std::span<const std::vector<std::int32_t>> rows, std::int64_t vocab_size) {
  for (const auto& row : rows) {
    for (const std::int32_t id : row) {
      if (id < vocab_size) continue;
      throw Error(ErrorCode::mismatch, "the tokenizer gives the id " + std::to_string(id),
                  "ids below " + std::to_string(vocab_size) + ", the model's vocabulary",
                  "use the tokenizer that belongs to the model");
    }
  }
}

}  // namespace kedge
