#include "generate/tokenizer.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <unordered_map>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "generate/tokenizer/added_tokens.h"
#include "generate/tokenizer/bpe.h"
#include "generate/tokenizer/normalizer.h"
#include "generate/tokenizer/post_processor.h"
#include "generate/tokenizer/pre_tokenizer.h"
#include "generate/tokenizer/token_decoder.h"
#include "generate/tokenizer/tokenizer_file.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::uint64_t max_file_bytes = 256ull << 20;
constexpr std::size_t max_text_bytes = 1ull << 30;
// Ids may have holes (padding of the vocabulary), but not so many that a small file takes much memory.
constexpr std::int64_t id_slack = 65536;

struct Token {
  std::string text;
  bool present = false, special = false;
};

// Pieces already tokenized in this call; one place per hash, the later one stays.
class PieceCache {
 public:
  static constexpr std::size_t places = 1 << 14;
  static constexpr std::size_t longest_piece = 64;

  PieceCache() : entries_(places) {}

  struct Entry {
    std::string_view piece;
    std::size_t begin = 0, end = 0;  // its ids in the output
  };
  Entry& at(std::string_view piece) { return entries_[std::hash<std::string_view>{}(piece) & (places - 1)]; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace

struct Tokenizer::Impl {
  std::vector<Token> tokens;  // by id
  Bpe::Vocab vocab;           // the model's; keys point into tokens
  std::unordered_map<std::string, std::int32_t> added_ids;
  std::vector<AddedToken> added;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<Bpe> bpe;
  PostProcessor post_processor;
  TokenDecoder decoder;
  std::int32_t bos = -1, eos = -1;
  std::string hash;

  void add_vocab(const BpeFile& file, const std::string& where);
  void add_added_tokens(const std::string& where);
  void hash_all(const Json& document, const BpeFile& file);
  void encode_text(std::string_view text, RegexScratch& scratch, std::vector<std::int32_t>& out) const;
  void encode_ordinary(std::string_view text, RegexScratch& scratch, std::vector<std::int32_t>& out) const;
};

void Tokenizer::Impl::add_vocab(const BpeFile& file, const std::string& where) {
  std::int64_t highest = -1;
  const auto limit = static_cast<std::int64_t>(2 * (file.vocab.size() + added.size())) + id_slack;
  const auto take = [&](const std::string& token, std::int64_t id) {
    if (id < 0 || id >= limit) {
      throw Error(ErrorCode::bad_file,
                  where + ": the id " + std::to_string(id) + " of token " + quote_text(token) + " is out of range",
                  "ids from 0 to about the number of tokens");
    }
    highest = std::max(highest, id);
  };
  for (const auto& [token, id] : file.vocab) take(token, id);
  for (const AddedToken& token : added) take(token.content, token.id);
  tokens.resize(static_cast<std::size_t>(highest + 1));
  vocab.reserve(file.vocab.size());
  for (const auto& [text, id] : file.vocab) {
    Token& token = tokens[static_cast<std::size_t>(id)];
    if (token.present) {
      throw Error(ErrorCode::bad_file, where + ": the tokens " + quote_text(token.text) + " and " + quote_text(text) +
                                           " have the same id " + std::to_string(id));
    }
    token.text = text;
    token.present = true;
    vocab.emplace(token.text, static_cast<std::int32_t>(id));
  }
}

void Tokenizer::Impl::add_added_tokens(const std::string& where) {
  RegexScratch scratch;
  for (const AddedToken& token : added) {
    Token& place = tokens[static_cast<std::size_t>(token.id)];
    const auto in_vocab = vocab.find(token.content);
    const bool moved = in_vocab != vocab.end() && in_vocab->second != token.id;
    if (moved || (place.present && place.text != token.content)) {
      throw Error(ErrorCode::bad_file, where + ": the added token " + quote_text(token.content) +
                                           " and the vocabulary disagree about id " + std::to_string(token.id));
    }
    if (!added_ids.try_emplace(token.content, token.id).second) {
      throw Error(ErrorCode::bad_file, where + ": the added token " + quote_text(token.content) + " is there twice");
    }
    if (!place.present) place.text = token.content;
    place.present = true;
    place.special = token.special;
    if (token.normalized) {
      normalized_matcher.add(&token, normalizer.apply(token.content, scratch));
    } else {
      raw_matcher.add(&token, token.content);
    }
  }
}

void Tokenizer::Impl::hash_all(const Json& document, const BpeFile& file) {
  Sha256 sha;
  // Lengths before texts: no two different lists give the same bytes.
  const auto put = [&](std::string_view text) {
    sha.update(std::to_string(text.size()) + ":");
    sha.update(text);
  };
  std::vector<std::pair<std::int64_t, std::string_view>> by_id;
  for (const auto& [text, id] : file.vocab) by_id.emplace_back(id, text);
  std::sort(by_id.begin(), by_id.end());
  for (const auto& [id, text] : by_id) {
    put(std::to_string(id));
    put(text);
  }
  put("merges");
  for (const auto& [a, b] : file.merges) {
    put(a);
    put(b);
  }
  put("options");
  put(file.options.unk_token.value_or(""));
  put({file.options.fuse_unk ? "1" : "0"});
  put({file.options.byte_fallback ? "1" : "0"});
  put({file.options.ignore_merges ? "1" : "0"});
  for (const char* key : {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    put(key);
    // nlohmann::json has sorted keys: the order in the file does not matter.
    put(nlohmann::json(member(document, key)).dump());
  }
  hash = sha.hex();
}

void Tokenizer::Impl::encode_text(std::string_view text, RegexScratch& scratch, std::vector<std::int32_t>& out) const {
  const auto raw_parts = raw_matcher.split(text);
  for (const auto& [span, id] : raw_parts) {
    if (id >= 0) {
      out.push_back(id);
      continue;
    }
    const std::string normalized =
        normalizer.apply(std::string(text.substr(span.begin, span.end - span.begin)), scratch);
    for (const auto& [inner, inner_id] : normalized_matcher.split(normalized)) {
      if (inner_id >= 0) {
        out.push_back(inner_id);
      } else {
        encode_ordinary(std::string_view(normalized).substr(inner.begin, inner.end - inner.begin), scratch, out);
      }
    }
  }
}

void Tokenizer::Impl::encode_ordinary(std::string_view text, RegexScratch& scratch,
                                      std::vector<std::int32_t>& out) const {
  Pieces pieces{std::string(text), {{0, text.size()}}};
  pre_tokenizer.apply(pieces, scratch);
  Bpe::Scratch bpe_scratch;
  constexpr std::size_t worth_a_cache = 1024;
  std::optional<PieceCache> cache;
  if (pieces.spans.size() >= worth_a_cache) cache.emplace();
  for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
    const std::string_view piece = pieces[i];
    if (!cache.has_value() || piece.size() > PieceCache::longest_piece) {
      bpe->encode(piece, bpe_scratch, out);
      continue;
    }
    PieceCache::Entry& entry = cache->at(piece);
    const std::size_t begin = out.size();
    if (entry.piece == piece) {
      for (std::size_t k = entry.begin; k < entry.end; ++k) out.push_back(out[k]);
    } else {
      bpe->encode(piece, bpe_scratch, out);
      entry = {piece, begin, out.size()};
    }
  }
}

Tokenizer::Tokenizer() : impl_(std::make_unique<Impl>()) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::parse(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  if (!document.is_object()) throw Error(ErrorCode::bad_file, where + " is not a JSON object", "a tokenizer.json");
  const BpeFile file = read_bpe(member(document, "model"), where + ": the model");
  Tokenizer tokenizer;
  Impl& impl = *tokenizer.impl_;
  impl.normalizer = Normalizer::parse(member(document, "normalizer"), where + ": the normalizer");
  impl.pre_tokenizer = PreTokenizer::parse(member(document, "pre_tokenizer"), where + ": the pre-tokenizer");
  impl.decoder = TokenDecoder::parse(member(document, "decoder"), where + ": the decoder");
  impl.added = parse_added_tokens(member(document, "added_tokens"), where + ": added_tokens");
  impl.add_vocab(file, where);
  impl.add_added_tokens(where);
  impl.bpe.emplace(impl.vocab, file.merges, file.options, where);
  impl.post_processor = PostProcessor::parse(member(document, "post_processor"), where + ": the post-processor");
  if (impl.post_processor.highest_id() >= static_cast<std::int64_t>(impl.tokens.size())) {
    throw Error(ErrorCode::bad_file, where + ": the post-processor adds the id " +
                                         std::to_string(impl.post_processor.highest_id()) + ", which no token has");
  }
  impl.hash_all(document, file);
  return tokenizer;
}

Tokenizer Tokenizer::open(const std::filesystem::path& directory) {
  if (!std::filesystem::is_directory(directory)) {
    throw Error(ErrorCode::not_found, "there is no folder " + directory.string(), "a Hugging Face model directory");
  }
  const auto path = directory / "tokenizer.json";
  Tokenizer tokenizer = parse(read_file(path, max_file_bytes), path.string());
  const auto config_path = directory / "tokenizer_config.json";
  if (std::filesystem::exists(config_path)) {
    const Json config = read_json(config_path);
    if (!config.is_object()) throw Error(ErrorCode::bad_file, config_path.string() + " is not a JSON object");
    const auto id_of = [&](const char* key) {
      const Json* token = &member(config, key);
      if (token->is_object()) token = &member(*token, "content");
      return token->is_string() ? tokenizer.token_to_id(token->get_ref<const std::string&>()) : -1;
    };
    tokenizer.impl_->bos = id_of("bos_token");
    tokenizer.impl_->eos = id_of("eos_token");
  }
  return tokenizer;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (text.size() > max_text_bytes) {
    throw Error(ErrorCode::usage,
                "a text of " + std::to_string(text.size()) + " bytes is too long to tokenize in one piece",
                "at most 1 GiB");
  }
  std::string repaired;
  if (!unicode::is_valid(text)) {
    repaired = unicode::to_valid(text);
    text = repaired;
  }
  RegexScratch scratch;
  std::vector<std::int32_t> ids;
  impl_->encode_text(text, scratch, ids);
  return add_special_tokens ? impl_->post_processor.apply(std::move(ids)) : ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= vocab_size() || !impl_->tokens[static_cast<std::size_t>(id)].present) continue;
    if (skip_special_tokens && is_special(id)) continue;
    tokens.push_back(impl_->tokens[static_cast<std::size_t>(id)].text);
  }
  return impl_->decoder.decode(std::move(tokens));
}

std::string Tokenizer::token_bytes(std::int32_t id) const { return byte_level_bytes(id_to_token(id)); }

std::int32_t Tokenizer::vocab_size() const noexcept { return static_cast<std::int32_t>(impl_->tokens.size()); }

std::int32_t Tokenizer::token_to_id(std::string_view token) const {
  if (const auto it = impl_->added_ids.find(std::string(token)); it != impl_->added_ids.end()) return it->second;
  const auto it = impl_->vocab.find(token);
  return it == impl_->vocab.end() ? -1 : it->second;
}

std::string Tokenizer::id_to_token(std::int32_t id) const {
  return id < 0 || id >= vocab_size() ? std::string() : impl_->tokens[static_cast<std::size_t>(id)].text;
}

bool Tokenizer::is_special(std::int32_t id) const noexcept {
  return id >= 0 && id < vocab_size() && impl_->tokens[static_cast<std::size_t>(id)].special;
}

std::int32_t Tokenizer::bos_id() const noexcept { return impl_->bos; }
std::int32_t Tokenizer::eos_id() const noexcept { return impl_->eos; }
bool Tokenizer::is_byte_level() const noexcept { return impl_->decoder.is_byte_level(); }
std::string Tokenizer::content_hash() const { return impl_->hash; }

}  // namespace kedge
