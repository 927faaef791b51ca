// Template source -> tokens, with jinja2's whitespace control. Source: jinja2 3.1, the documentation's "Whitespace
// Control".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kedge::jinja {

struct Token {
  enum class Kind {
    text,            // outside of tags
    block_begin,     // {%
    block_end,       // %}
    variable_begin,  // {{
    variable_end,    // }}
    name,
    string,  // text: unescaped
    integer,
    real,
    op,
    end,
  };
  Kind kind;
  std::string text;
  int line = 1;
};

/// Settings of jinja2's Environment; the defaults are transformers'.
struct Whitespace {
  bool trim_blocks = true;
  bool lstrip_blocks = true;
  bool keep_trailing_newline = false;
};

/// fail() with a message; `line` is where it was found. The last token is `end`.
std::vector<Token> tokenize(std::string_view source, int& line, const Whitespace& whitespace = {});

}  // namespace kedge::jinja
