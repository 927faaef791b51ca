// Template source -> tokens, with jinja2's whitespace control as transformers sets it: trim_blocks, lstrip_blocks, no
// kept trailing newline. Source: jinja2 3.1, the documentation's "Whitespace Control".
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

/// fail() with a message; `line` is where it was found. The last token is `end`.
std::vector<Token> tokenize(std::string_view source, int& line);

}  // namespace kedge::jinja
