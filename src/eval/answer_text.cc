#include "eval/answer_text.h"

#include <optional>

#include "generate/template/text.h"
#include "generate/tokenizer/regex.h"
#include "generate/tokenizer/unicode.h"

namespace kedge {
namespace {

std::optional<std::string> found(const AnswerFilter& filter, const std::string& text, RegexScratch& scratch) {
  const Regex regex(filter.pattern, "regex_pattern of the filter " + filter.name);
  std::optional<std::string> out;
  regex.for_each_match(text, scratch, [&](Span match) {
    if (out.has_value() && !filter.last) return;
    out = std::string(jinja::strip(std::string_view(text).substr(match.begin, match.end - match.begin), true, true));
  });
  return out;
}

std::string comparable(const EvalTask& task, std::string text, RegexScratch& scratch) {
  for (const std::string& pattern : task.regexes_to_ignore) {
    const Regex regex(pattern, "regexes_to_ignore");
    std::string kept;
    std::size_t from = 0;
    regex.for_each_match(text, scratch, [&](Span match) {
      kept.append(text, from, match.begin - from);
      from = match.end;
    });
    kept.append(text, from);
    text = std::move(kept);
  }
  return task.ignore_case ? jinja::to_lower(text) : text;
}

}  // namespace

double exact_match(const EvalTask& task, const std::string& filter, const std::string& text,
                   const std::string& target) {
  RegexScratch scratch;
  std::optional<std::string> answer = unicode::to_valid(text);
  for (const AnswerFilter& candidate : task.filters) {
    if (candidate.name == filter) answer = found(candidate, *answer, scratch);
  }
  if (!answer.has_value()) return 0;
  return comparable(task, *answer, scratch) == comparable(task, target, scratch) ? 1 : 0;
}

}  // namespace kedge
