#include "ptq/recipe.h"

#include <utility>

#include "base/hash.h"
#include "base/json.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Linear in the name's length for each '*': backtracks only to the last star.
bool glob_matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

ModulePattern::ModulePattern(std::string pattern) : text_(std::move(pattern)) {
  const bool is_regex = text_.starts_with("re:");
  if (text_.size() <= (is_regex ? 3u : 0u)) {
    throw Error(ErrorCode::usage, "the override pattern \"" + text_ + "\" is empty",
                "a glob over module names or re: and a regular expression");
  }
  if (!is_regex) return;
  regex_ = NamePattern::compile(std::string_view(text_).substr(3));
  if (!regex_) {
    throw Error(ErrorCode::usage,
                "the override pattern \"" + text_ + "\" is malformed or uses what kedge does not read",
                "a regular expression without look-around, back references and flags");
  }
}

bool ModulePattern::matches(std::string_view name) const {
  return regex_ ? regex_->matches_prefix(name) : glob_matches(text_, name);
}

Json Recipe::to_json() const {
  Json json;
  json["scheme"] = scheme.name;
  json["method"] = method;
  json["overrides"] = Json::array();
  for (const Override& override : overrides) {
    json["overrides"].push_back(
        {{"pattern", override.pattern.text()}, {"scheme", override.scheme ? override.scheme->name : "none"}});
  }
  return json;
}

std::string Recipe::hash() const { return sha256_hex(to_json().dump()); }

}  // namespace kedge
