// Decoders of tokenizer.json: tokens -> text. ByteLevel, Sequence, Replace, ByteFallback, Fuse, Strip.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "generate/tokenizer/regex.h"

namespace kedge {

/// A token of GPT-2's byte alphabet -> its bytes; a token with any other character stands for itself.
std::string byte_level_bytes(std::string_view token);

class TokenDecoder {
 public:
  /// json: the "decoder" value; null joins the tokens with spaces. Error(unsupported), Error(bad_file).
  static TokenDecoder parse(const nlohmann::ordered_json& json, const std::string& where);
  /// Is the text the tokens' bytes one after the other?
  bool is_byte_level() const noexcept;
  std::string decode(std::vector<std::string> tokens) const;

 private:
  struct ByteLevel {};
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string content;
    std::int64_t start = 0, stop = 0;
  };
  using Step = std::variant<ByteLevel, Replace, ByteFallback, Fuse, Strip>;

  void add(const nlohmann::ordered_json& json, const std::string& where);
  bool joined_with_spaces_ = false;
  std::vector<Step> steps_;
};

}  // namespace kedge
