// The model part of a tokenizer.json: vocabulary, merges and how they are applied.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "generate/tokenizer/bpe.h"

namespace kedge {

struct BpeFile {
  std::vector<std::pair<std::string, std::int64_t>> vocab;  ///< in file order
  Bpe::Merges merges;
  BpeOptions options;
};

/// The "model" object. Error(unsupported): another model than BPE, dropout, prefixes and suffixes of subwords.
/// Error(bad_file): no vocabulary, no merges, an id that is no integer, a merge that is not two tokens.
BpeFile read_bpe(const nlohmann::ordered_json& model, const std::string& where);

/// A member of an object, null when absent.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, const char* key);

/// Untrusted text for a message: shortened, without control characters.
std::string quote_text(const std::string& text);

}  // namespace kedge
