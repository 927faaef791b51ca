// Tokens -> tree. Grammar: jinja2's expressions; the statements for, if, set, macro, with, filter, raw, break,
// continue, and transformers' generation. Others (include, import, extends, block, call, recursive loops) are
// unsupported.
#pragma once

#include <string_view>

#include "generate/template/ast.h"
#include "generate/template/lexer.h"

namespace kedge::jinja {

/// fail(), fail_unsupported(); `line` is where.
Body parse(std::string_view source, int& line, const Whitespace& whitespace = {});

}  // namespace kedge::jinja
