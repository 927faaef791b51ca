#include "generate/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/check.h"
#include "base/json.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

utf8proc_propval_t combining_class(utf8proc_int32_t c) {
  return c < 0x300 ? utf8proc_propval_t{0} : utf8proc_get_property(c)->combining_class;
}

// utf8proc's own reordering takes quadratic time for long runs of marks.
void sort_marks(std::vector<utf8proc_int32_t>& text) {
  for (std::size_t i = 0; i < text.size();) {
    if (combining_class(text[i]) == 0) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(i), text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const char32_t c = unicode::next(text, pos);
    if (c == 0x130) {  // the one letter whose lower case is two code points (SpecialCasing.txt)
      out += "i\xCC\x87";
    } else {
      unicode::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

std::string strip_accents(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const char32_t c = unicode::next(text, pos);
    if (utf8proc_category(static_cast<utf8proc_int32_t>(c)) != UTF8PROC_CATEGORY_MN) unicode::append(out, c);
  }
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  std::size_t begin = text.size(), end = 0;
  for (std::size_t pos = 0; pos < text.size();) {
    const std::size_t at = pos;
    if (unicode::is_space(unicode::next(text, pos))) continue;
    begin = std::min(begin, at);
    end = pos;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return std::string(begin < end ? text.substr(begin, end - begin) : std::string_view());
}

void check_growth(std::size_t before, std::size_t after) {
  if (after > growth_limit(before)) {
    throw Error(ErrorCode::unsupported,
                "a text of " + std::to_string(before) + " bytes grows beyond " + std::to_string(growth_limit(before)) +
                    " in the tokenizer",
                "replacements of moderate length");
  }
}

}  // namespace

std::string unicode_normal_form(std::string_view text, bool compose, bool compatibility) {
  if (is_ascii(text)) return std::string(text);
  int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatibility) options |= UTF8PROC_COMPAT;
  const auto flags = static_cast<utf8proc_option_t>(options);
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(unicode::next(text, pos));
    utf8proc_int32_t buffer[32];  // U+FDFA decomposes into 18, the most of all
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, buffer, 32, flags, nullptr);
    KEDGE_CHECK(n >= 0 && n <= 32);
    points.insert(points.end(), buffer, buffer + n);
  }
  sort_marks(points);
  utf8proc_ssize_t count = static_cast<utf8proc_ssize_t>(points.size());
  if (compose) count = utf8proc_normalize_utf32(points.data(), count, flags);
  KEDGE_CHECK(count >= 0);
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i)
    unicode::append(out, static_cast<char32_t>(points[static_cast<std::size_t>(i)]));
  return out;
}

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content,
                        RegexScratch& scratch) {
  std::vector<Pattern::Part> parts;
  pattern.split(text, scratch, parts);
  std::string out;
  for (const Pattern::Part& part : parts) {
    out.append(part.is_match ? content : text.substr(part.span.begin, part.span.end - part.span.begin));
    check_growth(text.size(), out.size());
  }
  return out;
}

std::string part_type(const Json& object, const std::string& where) {
  if (!object.is_object()) throw Error(ErrorCode::bad_file, where + " is not an object", "an object with \"type\"");
  return json_get<std::string>(object, "type", where);
}

Pattern parse_pattern(const Json& object, const std::string& where) {
  const auto pattern = object.find("pattern");
  if (pattern != object.end() && pattern->is_object()) {
    if (pattern->contains("Regex")) return Pattern::regex(json_get<std::string>(*pattern, "Regex", where), where);
    if (pattern->contains("String")) return Pattern::literal(json_get<std::string>(*pattern, "String", where));
  }
  throw Error(ErrorCode::bad_file, where + " has no readable pattern", "{\"Regex\": ...} or {\"String\": ...}");
}

Normalizer Normalizer::parse(const Json& json, const std::string& where) {
  Normalizer normalizer;
  if (!json.is_null()) normalizer.add(json, where);
  return normalizer;
}

void Normalizer::add(const Json& json, const std::string& where) {
  const std::string type = part_type(json, where);
  if (type == "Sequence") {
    const auto list = json.find("normalizers");
    if (list == json.end() || !list->is_array())
      throw Error(ErrorCode::bad_file, where + ": a Sequence without \"normalizers\"");
    for (const Json& part : *list) add(part, where);
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.emplace_back(UnicodeForm{.compose = type.back() == 'C', .compatibility = type[2] == 'K'});
  } else if (type == "Lowercase") {
    steps_.emplace_back(Lowercase{});
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{json_get<std::string>(json, "prepend", where)});
  } else if (type == "Replace") {
    steps_.emplace_back(Replace{parse_pattern(json, where), json_get<std::string>(json, "content", where)});
  } else if (type == "Strip") {
    steps_.emplace_back(
        Strip{json_get_or<bool>(json, "strip_left", true, where), json_get_or<bool>(json, "strip_right", true, where)});
  } else if (type == "StripAccents") {
    steps_.emplace_back(StripAccents{});
  } else {
    throw Error(ErrorCode::unsupported, where + " '" + type + "' is not known to kedge",
                "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip or StripAccents");
  }
}

std::string Normalizer::apply(std::string text, RegexScratch& scratch) const {
  const std::size_t original = text.size();
  for (const Step& step : steps_) {
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      text = unicode_normal_form(text, form->compose, form->compatibility);
    } else if (std::holds_alternative<Lowercase>(step)) {
      text = lowercase(text);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!text.empty()) text.insert(0, prepend->text);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      text = replace_all(text, replace->pattern, replace->content, scratch);
    } else if (const auto* ends = std::get_if<Strip>(&step)) {
      text = strip(text, ends->left, ends->right);
    } else {
      text = strip_accents(text);
    }
    check_growth(original, text.size());
  }
  return text;
}

}  // namespace kedge
