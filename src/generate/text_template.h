// A template over one record: {{question}} and what else Jinja has, as lm-evaluation-harness's task files use it.
//
// Whitespace is the template's own (no trim_blocks, the last newline stays), and a field that the record lacks is an
// error where it is printed. Interpreted by template/, with its limits.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace kedge {

class TextTemplate {
 public:
  /// where: for messages. Error(bad_file): no template. Error(unsupported): a part of Jinja that kedge lacks.
  static TextTemplate parse(std::string_view source, const std::string& where);
  ~TextTemplate();
  TextTemplate(TextTemplate&&) noexcept;
  TextTemplate& operator=(TextTemplate&&) noexcept;

  /// record: an object; its members are the variables. Error(bad_file) names `where` and what went wrong.
  std::string text(const nlohmann::ordered_json& record) const;
  /// The value of the one {{ }} that the template prints: a list stays a list.
  nlohmann::ordered_json value(const nlohmann::ordered_json& record) const;

 private:
  TextTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
