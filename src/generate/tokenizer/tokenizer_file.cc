#include "generate/tokenizer/tokenizer_file.h"

#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

std::optional<std::string> optional_string(const Json& object, const char* key, const std::string& where) {
  if (member(object, key).is_null()) return std::nullopt;
  return json_get<std::string>(object, key, where);
}

void refuse_options(const Json& model, const std::string& where) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!optional_string(model, key, where).value_or("").empty()) {
      throw Error(ErrorCode::unsupported, where + " has a " + key + ", which is not known to kedge");
    }
  }
  if (json_get_or<double>(model, "dropout", 0.0, where) != 0.0) {
    throw Error(ErrorCode::unsupported, where + " has BPE dropout", "a tokenizer that gives the same tokens each time");
  }
}

void check_type(const Json& model, const std::string& where) {
  // Old files have no type: then vocabulary and merges say that it is BPE.
  const std::string type = optional_string(model, "type", where).value_or("BPE");
  if (type != "BPE") {
    throw Error(ErrorCode::unsupported, where + " is of type " + quote_text(type), "BPE",
                "use a model whose tokenizer is byte-pair encoding");
  }
}

std::pair<std::string, std::string> read_merge(const Json& entry, const std::string& where) {
  if (entry.is_string()) {
    const auto& text = entry.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return {entry[0].get<std::string>(), entry[1].get<std::string>()};
  }
  const std::string shown =
      entry.is_string() ? quote_text(entry.get_ref<const std::string&>()) : std::string("of another kind");
  throw Error(ErrorCode::bad_file, where + " has a merge " + shown, "\"a b\" or [\"a\", \"b\"]");
}

}  // namespace

const Json& member(const Json& object, const char* key) {
  static const Json null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

std::string quote_text(const std::string& text) {
  constexpr std::size_t longest = 80;
  std::string out = "'";
  for (const char c : text.substr(0, longest)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return out + (text.size() > longest ? "...'" : "'");
}

BpeFile read_bpe(const Json& model, const std::string& where) {
  if (!model.is_object()) throw Error(ErrorCode::bad_file, where + " is missing", "an object with vocab and merges");
  check_type(model, where);
  refuse_options(model, where);
  BpeFile file;
  const Json& vocab = member(model, "vocab");
  if (!vocab.is_object() || vocab.empty())
    throw Error(ErrorCode::bad_file, where + " has no vocabulary", "\"vocab\", an object of token: id");
  file.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer())
      throw Error(ErrorCode::bad_file, where + ": the id of token " + quote_text(token) + " is no integer");
    const bool huge = id.is_number_unsigned() && id.get<std::uint64_t>() > 0x7FFFFFFFu;
    file.vocab.emplace_back(token, huge ? -1 : id.get<std::int64_t>());
  }
  const Json& merges = member(model, "merges");
  if (!merges.is_array()) throw Error(ErrorCode::bad_file, where + " has no merges", "\"merges\", an array");
  file.merges.reserve(merges.size());
  for (const Json& entry : merges) {
    // The first line of the older text form.
    if (entry.is_string() && entry.get_ref<const std::string&>().starts_with("#version")) continue;
    file.merges.push_back(read_merge(entry, where));
  }
  file.options = {.unk_token = optional_string(model, "unk_token", where),
                  .fuse_unk = json_get_or<bool>(model, "fuse_unk", false, where),
                  .byte_fallback = json_get_or<bool>(model, "byte_fallback", false, where),
                  .ignore_merges = json_get_or<bool>(model, "ignore_merges", false, where)};
  return file;
}

}  // namespace kedge
