// How values are written: as Python's str() and repr(), and as json.dumps().
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "generate/template/value.h"
#include "generate/tokenizer/unicode.h"

namespace kedge::jinja {
namespace {

// Python's repr of a float: the shortest digits that give the number back; an exponent below -4 and from 16 on.
std::string real_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::scientific).ptr;
  std::string digits(buffer, end);
  std::string sign;
  if (digits[0] == '-') sign = "-", digits.erase(0, 1);
  const std::size_t e = digits.find('e');
  const int exponent = std::atoi(digits.c_str() + e + 1);
  digits.erase(e);
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    const std::string fraction = count > 1 ? "." + digits.substr(1) : "";
    return fmt::format("{}{}{}e{}{:02}", sign, digits[0], fraction, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return sign + digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, static_cast<std::size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<std::size_t>(exponent + 1));
}

std::string quoted(const std::string& text) {
  const bool single = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\') {
      out += '\\', out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + quote;
}

void write_repr(const Value& value, std::string& out);

template <class Items, class Write>
void write_items(const Items& items, std::string& out, Write&& write) {
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ", ";
    first = false;
    write(item);
  }
}

void write_repr(const Value& value, std::string& out) {
  if (const std::string* s = value.string()) {
    out += quoted(*s);
  } else if (const List* list = value.list()) {
    out += list->tuple ? '(' : '[';
    write_items(list->items, out, [&](const Value& item) { write_repr(item, out); });
    if (list->tuple && list->items.size() == 1) out += ',';
    out += list->tuple ? ')' : ']';
  } else if (const Dict* dict = value.dict()) {
    out += '{';
    write_items(dict->items, out, [&](const auto& item) {
      write_repr(item.first, out);
      out += ": ";
      write_repr(item.second, out);
    });
    out += '}';
  } else {
    out += to_text(value);
  }
}

class JsonWriter {
 public:
  JsonWriter(Meter& meter, const JsonStyle& style) : meter_(meter), style_(style) {}

  std::string take(const Value& value) {
    write(value, 0);
    return std::move(out_);
  }

 private:
  void write(const Value& value, int level) {
    meter_.work(16);
    if (const std::string* s = value.string()) {
      write_string(*s);
    } else if (const List* list = value.list()) {
      write_container('[', ']', list->items, level, [&](const Value& item) { write(item, level + 1); });
    } else if (const Dict* dict = value.dict()) {
      auto items = dict->items;
      if (style_.sort_keys) {
        std::stable_sort(items.begin(), items.end(),
                         [this](const auto& a, const auto& b) { return compare(meter_, a.first, b.first) < 0; });
      }
      write_container('{', '}', items, level, [&](const auto& item) {
        write_key(item.first);
        separate(style_.key_separator);
        write(item.second, level + 1);
      });
    } else {
      out_ += scalar(value);
    }
    meter_.check(out_.size());
    meter_.bytes(out_.size() - charged_), charged_ = out_.size();
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* b = value.boolean()) return *b ? "true" : "false";
    if (const double* r = value.real()) {
      if (std::isnan(*r)) return "NaN";
      if (std::isinf(*r)) return *r < 0 ? "-Infinity" : "Infinity";
      return real_text(*r);
    }
    if (value.integer() == nullptr) fail(fmt::format("tojson of {}", value.type_name()));
    return to_text(value);
  }

  void write_key(const Value& key) { write_string(key.string() != nullptr ? *key.string() : scalar(key)); }

  template <class Items, class Write>
  void write_container(char open, char close, const Items& items, int level, Write&& write_item) {
    out_ += open;
    bool first = true;
    for (const auto& item : items) {
      if (!first) separate(style_.item_separator);
      first = false;
      new_line(level + 1);
      write_item(item);
    }
    if (!items.empty()) new_line(level);
    out_ += close;
  }

  // Separators are the template's own, of any length.
  void separate(const std::string& separator) {
    meter_.check(out_.size() + separator.size());
    out_ += separator;
  }

  void new_line(int level) {
    if (style_.indent < 0) return;
    meter_.work(static_cast<std::uint64_t>(style_.indent * level));
    meter_.check(out_.size() + static_cast<std::uint64_t>(style_.indent * level));
    out_ += '\n';
    out_.append(static_cast<std::size_t>(style_.indent * level), ' ');
  }

  void write_string(const std::string& text) {
    out_ += '"';
    for (std::size_t pos = 0; pos < text.size();) {
      const std::size_t begin = pos;
      const char32_t c = unicode::next(text, pos);
      static constexpr std::string_view named = "\"\\\n\r\t\b\f", letters = "\"\\nrtbf";
      const std::size_t n = c < 0x80 ? named.find(static_cast<char>(c)) : std::string_view::npos;
      if (n != std::string_view::npos) {
        out_ += '\\', out_ += letters[n];
      } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7f && c <= 0xffff)) {
        if (c == 0x7f) {
          out_ += '\x7f';
        } else {
          out_ += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(c));
        }
      } else if (style_.ensure_ascii && c > 0xffff) {
        const auto high = static_cast<std::uint32_t>(0xd800 + ((c - 0x10000) >> 10));
        out_ += fmt::format("\\u{:04x}\\u{:04x}", high, static_cast<std::uint32_t>(0xdc00 + ((c - 0x10000) & 0x3ff)));
      } else {
        out_.append(text, begin, pos - begin);
      }
    }
    out_ += '"';
  }

  Meter& meter_;
  const JsonStyle& style_;
  std::string out_;
  std::size_t charged_ = 0;
};

}  // namespace

std::string to_text(const Value& value) {
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (const bool* b = value.boolean()) return *b ? "True" : "False";
  if (const std::int64_t* i = value.integer()) return std::to_string(*i);
  if (const double* r = value.real()) return real_text(*r);
  if (const std::string* s = value.string()) return *s;
  if (value.list() != nullptr || value.dict() != nullptr) return to_repr(value);
  fail_unsupported(fmt::format("a {} as text", value.type_name()));
}

std::string to_repr(const Value& value) {
  std::string out;
  write_repr(value, out);
  return out;
}

std::string to_json_text(Meter& meter, const Value& value, const JsonStyle& style) {
  return JsonWriter(meter, style).take(value);
}

}  // namespace kedge::jinja
