#include "generate/tokenizer.h"
#include "generate/tokenizer/unicode.h"

namespace kedge {
namespace {

// A window that only ends in U+FFFD is given out after so many ids: it may never be completed.
constexpr std::size_t longest_window = 32;

bool ends_incomplete(const std::string& text) { return text.ends_with("\xEF\xBF\xBD"); }

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string Detokenizer::push(std::int32_t id) {
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  if (tokenizer_.is_byte_level()) {
    pending_ += tokenizer_.token_bytes(id);
    return unicode::take_complete(pending_);
  }
  ids_.push_back(id);
  const std::string before = tokenizer_.decode({ids_.data(), context_});
  std::string now = tokenizer_.decode(ids_);
  const bool whole = now.size() > before.size() && !ends_incomplete(now);
  if (!whole && ids_.size() - context_ < longest_window) return {};
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(context_));
  context_ = ids_.size();
  return now.starts_with(before) ? now.substr(before.size()) : now;
}

std::string Detokenizer::flush() {
  std::string out;
  if (tokenizer_.is_byte_level()) {
    out = unicode::to_valid(pending_);
  } else if (context_ < ids_.size()) {
    const std::string before = tokenizer_.decode({ids_.data(), context_});
    const std::string now = tokenizer_.decode(ids_);
    out = now.starts_with(before) ? now.substr(before.size()) : now;
  }
  pending_.clear();
  ids_.clear();
  context_ = 0;
  return out;
}

}  // namespace kedge
