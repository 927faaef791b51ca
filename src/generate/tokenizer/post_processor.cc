#include "generate/tokenizer/post_processor.h"

#include <algorithm>

#include "base/json.h"
#include "generate/tokenizer/normalizer.h"
#include "generate/tokenizer/tokenizer_file.h"
#include "kedge/error.h"

namespace kedge {

PostProcessor PostProcessor::parse(const Json& json, const std::string& where) {
  PostProcessor processor;
  if (!json.is_null()) processor.add(json, where);
  return processor;
}

void PostProcessor::add(const Json& json, const std::string& where) {
  const std::string type = part_type(json, where);
  if (type == "Sequence") {
    const Json& list = member(json, "processors");
    if (!list.is_array()) throw Error(ErrorCode::bad_file, where + ": a Sequence without \"processors\"");
    for (const Json& part : list) add(part, where);
  } else if (type == "TemplateProcessing") {
    add_template(json, where);
  } else if (type != "ByteLevel") {
    throw Error(ErrorCode::unsupported, where + " " + quote_text(type) + " is not known to kedge",
                "Sequence, ByteLevel or TemplateProcessing");
  }
}

void PostProcessor::add_template(const Json& json, const std::string& where) {
  const Json& single = member(json, "single");
  if (!single.is_array()) throw Error(ErrorCode::bad_file, where + ": a TemplateProcessing without \"single\"");
  const Json& special_tokens = member(json, "special_tokens");
  Template result;
  bool text_seen = false;
  for (const Json& piece : single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (text_seen) throw Error(ErrorCode::unsupported, where + ": a template with the text twice");
      text_seen = true;
      continue;
    }
    if (!piece.is_object() || !member(piece, "SpecialToken").is_object()) {
      throw Error(ErrorCode::bad_file, where + ": a template entry that is neither Sequence nor SpecialToken");
    }
    const auto name = json_get<std::string>(member(piece, "SpecialToken"), "id", where);
    const auto entry = special_tokens.find(name);
    if (!special_tokens.is_object() || entry == special_tokens.end() || !entry->is_object() ||
        !member(*entry, "ids").is_array()) {
      throw Error(ErrorCode::bad_file, where + ": special_tokens lacks the ids of " + quote_text(name));
    }
    for (const Json& id : member(*entry, "ids")) {
      const bool fits = id.is_number_unsigned() && id.get<std::uint64_t>() <= 0x7FFFFFFFu;
      if (!fits) throw Error(ErrorCode::bad_file, where + ": an id of " + quote_text(name) + " is out of range");
      (text_seen ? result.behind : result.before).push_back(id.get<std::int32_t>());
      highest_id_ = std::max(highest_id_, id.get<std::int64_t>());
    }
  }
  if (!text_seen) throw Error(ErrorCode::bad_file, where + ": a template without the text");
  templates_.push_back(std::move(result));
}

std::vector<std::int32_t> PostProcessor::apply(std::vector<std::int32_t> ids) const {
  for (const Template& t : templates_) {
    ids.insert(ids.begin(), t.before.begin(), t.before.end());
    ids.insert(ids.end(), t.behind.begin(), t.behind.end());
  }
  return ids;
}

}  // namespace kedge
