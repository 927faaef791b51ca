#include "eval/requests.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "generate/corpus.h"
#include "generate/template/text.h"
#include "kedge/error.h"

namespace kedge {

RequestEncoder::RequestEncoder(const Tokenizer& tokenizer, const LoadedModel& model)
    : tokenizer_(tokenizer),
      prefix_(tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id()),
      vocab_(model.model.spec().vocab_size),
      max_length_(model.model.spec().max_position_embeddings) {
  if (prefix_ < 0) {
    const std::vector<std::int32_t> eos = eos_token_ids(model.checkpoint);
    if (!eos.empty()) prefix_ = eos.front();
  }
  if (prefix_ >= 0) prefix_text_ = tokenizer.id_to_token(prefix_);
}

std::int32_t RequestEncoder::prefix() const {
  if (prefix_ >= 0) return prefix_;
  throw Error(ErrorCode::unsupported,
              "a prompt is empty and the model has neither a bos nor an eos token to start from", {},
              "leave this task out");
}

std::vector<std::int32_t> RequestEncoder::encode(const std::string& text) const {
  // A text that brings the bos token along does not get another.
  const bool has_prefix = !prefix_text_.empty() && text.starts_with(prefix_text_);
  std::vector<std::int32_t> ids = tokenizer_.encode(text, !has_prefix);
  check_token_ids(std::span(&ids, 1), vocab_);
  return ids;
}

ScoreRequest RequestEncoder::pair(const std::string& context, const std::string& continuation) const {
  ScoreRequest out;
  if (context.empty()) {
    out.continuation = tokenizer_.encode(continuation, false);
    check_token_ids(std::span(&out.continuation, 1), vocab_);
    out.context = {prefix()};
    if (!out.continuation.empty() && out.continuation.front() == prefix()) {
      out.continuation.erase(out.continuation.begin());
    }
  } else {
    const std::size_t kept = jinja::strip(context, false, true).size();
    const std::string before = context.substr(0, kept), after = context.substr(kept) + continuation;
    out.context = encode(before);
    const std::vector<std::int32_t> whole = encode(before + after);
    if (whole.size() > out.context.size()) {
      out.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(out.context.size()), whole.end());
    }
    if (out.context.empty()) out.context = {prefix()};
  }
  if (out.continuation.empty()) {
    throw Error(ErrorCode::bad_file,
                fmt::format("the answer \"{}\" tokenizes to nothing behind its prompt", continuation),
                "a token or more");
  }
  return out;
}

std::vector<ScoreRequest> RequestEncoder::windows(const std::string& text) const {
  const std::vector<std::int32_t> ids = encode(text);
  const auto size = static_cast<std::int64_t>(ids.size());
  const auto slice = [&](std::int64_t begin, std::int64_t end) {
    return std::vector<std::int32_t>(ids.begin() + begin, ids.begin() + end);
  };
  std::vector<ScoreRequest> out;
  for (std::int64_t done = 0; done < size;) {
    const std::int64_t n = std::min(size - done, max_length_), end = done + n;
    if (done == 0) {
      out.push_back({{prefix()}, slice(0, n)});
    } else {
      // The last window has more context where it predicts less.
      out.push_back({slice(std::max<std::int64_t>(0, end - max_length_ - 1), done), slice(done, end)});
    }
    done = end;
  }
  if (out.empty()) throw Error(ErrorCode::bad_file, "a text tokenizes to nothing", "a token or more");
  return out;
}

std::vector<std::int32_t> RequestEncoder::prompt(const std::string& text) const {
  std::vector<std::int32_t> ids = encode(text);
  if (ids.empty()) ids.push_back(prefix());
  return ids;
}

}  // namespace kedge
