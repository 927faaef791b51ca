// Text <-> token ids, from a Hugging Face tokenizer.json.
//
// Supported: BPE (byte-level or with byte fallback) and the parts listed in tokenizer/{normalizer, pre_tokenizer,
// token_decoder}.h; any other part is an Error(unsupported) that names it. Ids equal those of the `tokenizers`
// library, whose order of steps this follows: added tokens, normalizer, pre-tokenizer, model, post-processor.
// Text that is not UTF-8 is repaired first: each ill-formed part becomes U+FFFD.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

class Tokenizer {
 public:
  /// directory/tokenizer.json (+ tokenizer_config.json when there, for the names of the bos and eos tokens). Error(not_found),
  /// Error(bad_file), Error(unsupported) names the part that kedge does not have.
  static Tokenizer open(const std::filesystem::path& directory);
  static Tokenizer parse(std::string_view tokenizer_json, const std::string& where);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// add_special_tokens: what the post-processor adds. Added tokens in the text are recognised either way.
  /// May be called by several threads at once. Error(usage): a text of more than 1 GiB.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = false) const;
  /// Ids that are no token give nothing.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;
  /// The bytes of one token as the byte-level decoder gives them (may be part of a UTF-8 sequence).
  std::string token_bytes(std::int32_t id) const;
  /// The highest id plus one, added tokens included.
  std::int32_t vocab_size() const noexcept;
  std::int32_t token_to_id(std::string_view token) const;  ///< -1 when absent
  std::string id_to_token(std::int32_t id) const;          ///< as in the vocabulary; empty for no token
  bool is_special(std::int32_t id) const noexcept;
  /// bos_token of tokenizer_config.json; -1 when there is none.
  std::int32_t bos_id() const noexcept;
  /// eos_token of tokenizer_config.json; -1 when there is none.
  std::int32_t eos_id() const noexcept;
  /// Is decoding the concatenation of token_bytes()?
  bool is_byte_level() const noexcept;
  /// SHA-256 of vocabulary, merges, added tokens and the other parts: equal hashes tokenize alike.
  std::string content_hash() const;

 private:
  Tokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Feeds ids one at a time and yields text as soon as it is complete UTF-8. The pieces joined are
/// Tokenizer::decode of all ids.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  std::string push(std::int32_t id);
  /// What is left; incomplete sequences become U+FFFD.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;  // byte level: bytes not yet given out
  // Other decoders look at neighbours: ids_ is a window that is decoded anew, and whose first context_ ids are out.
  std::vector<std::int32_t> ids_;
  std::size_t context_ = 0;
};

}  // namespace kedge
