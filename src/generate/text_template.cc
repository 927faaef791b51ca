#include "generate/text_template.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "base/json.h"
#include "generate/template/interpreter.h"
#include "generate/template/parser.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

// Generous for one record, and an end for a template that loops.
constexpr std::uint64_t kMaxSteps = 400'000'000;
constexpr std::size_t kMaxBytes = 64 * 1024 * 1024;

[[noreturn]] void rethrow(const jinja::Failure& failure, const std::string& where, int line) {
  const bool unsupported = failure.kind == jinja::Failure::Kind::unsupported;
  throw Error(unsupported ? ErrorCode::unsupported : ErrorCode::bad_file,
              fmt::format("{}, line {} of the template: {}{}", where, line,
                          unsupported ? "kedge's templates lack " : "", failure.message));
}

std::vector<std::pair<std::string, jinja::Value>> variables(const Json& record) {
  std::vector<std::pair<std::string, jinja::Value>> names;
  names.reserve(record.size());
  for (const auto& [key, value] : record.items()) names.emplace_back(key, jinja::Value::from_json(value));
  return names;
}

}  // namespace

struct TextTemplate::Impl {
  std::string where;
  jinja::Body body;

  template <class F>
  auto run(F&& f) const {
    jinja::Meter meter(kMaxSteps, kMaxBytes);
    jinja::Interpreter interpreter(meter);
    interpreter.set_strict();
    try {
      return f(meter, interpreter);
    } catch (const jinja::Failure& failure) {
      rethrow(failure, where, interpreter.line());
    }
  }
};

TextTemplate::TextTemplate() : impl_(std::make_unique<Impl>()) {}
TextTemplate::~TextTemplate() = default;
TextTemplate::TextTemplate(TextTemplate&&) noexcept = default;
TextTemplate& TextTemplate::operator=(TextTemplate&&) noexcept = default;

TextTemplate TextTemplate::parse(std::string_view source, const std::string& where) {
  if (!unicode::is_valid(source)) throw Error(ErrorCode::bad_file, where + " is not UTF-8");
  TextTemplate out;
  out.impl_->where = where;
  int line = 1;
  try {
    out.impl_->body =
        jinja::parse(source, line, {.trim_blocks = false, .lstrip_blocks = false, .keep_trailing_newline = true});
  } catch (const jinja::Failure& failure) {
    rethrow(failure, where, line);
  }
  return out;
}

std::string TextTemplate::text(const Json& record) const {
  return impl_->run([&](jinja::Meter&, jinja::Interpreter& interpreter) {
    return interpreter.render(impl_->body, variables(record));
  });
}

Json TextTemplate::value(const Json& record) const {
  return impl_->run([&](jinja::Meter& meter, jinja::Interpreter& interpreter) {
    const jinja::Value value = interpreter.value(impl_->body, variables(record));
    return parse_json(jinja::to_json_text(meter, value, {}), impl_->where);
  });
}

}  // namespace kedge
