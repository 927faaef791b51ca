// A model's chat template: messages -> the text that the model was trained on.
//
// A template is a program in Jinja, from the checkpoint: untrusted. It is interpreted (template/), not executed: it
// reaches its variables and nothing else, and its steps, its depth and the size of what it makes are bounded. Rendered
// as transformers' apply_chat_template does (environment: trim_blocks, lstrip_blocks, loop controls, its own tojson),
// but strftime_now is there only when the caller says what time it is: without, the same messages give the same text on
// any day, as templates that ask whether it is defined take their fixed date. Parts of Jinja that kedge lacks are an
// Error(unsupported) that names them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kedge {

struct TemplateOptions {
  std::optional<std::int64_t> now;           ///< seconds since 1970, UTC, for strftime_now
  std::uint64_t max_steps = 4'000'000'000;   ///< about bytes touched: seconds
  std::size_t max_bytes = 64 * 1024 * 1024;  ///< of the result, and of each value on the way
};

class ChatTemplate {
 public:
  using SpecialTokens = std::vector<std::pair<std::string, std::string>>;  ///< {"bos_token", "<s>"}, ...

  /// chat_template.jinja, else chat_template of tokenizer_config.json (a text, or a list of {name, template}: the one
  /// named "default"); nothing when the model has none. Error(bad_file), Error(unsupported) name the line.
  static std::optional<ChatTemplate> open(const std::filesystem::path& directory, const TemplateOptions& options = {});
  /// where: for messages.
  static ChatTemplate parse(std::string_view source, const std::string& where, SpecialTokens special_tokens = {},
                            const TemplateOptions& options = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  /// messages: [{"role": ..., "content": ...}, ...]. variables: an object; each member is a variable of the template
  /// ("tools", "enable_thinking", ...). Error(usage): messages of another form, or what the template itself refuses by
  /// raise_exception. Error(bad_file): a mistake of the template, or a limit. May be called by several threads at once.
  std::string render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                     const nlohmann::ordered_json& variables) const;
  std::string render(const nlohmann::ordered_json& messages, bool add_generation_prompt = false) const;
  /// SHA-256 of the template's text and the special tokens.
  std::string content_hash() const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kedge
