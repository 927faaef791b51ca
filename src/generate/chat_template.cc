#include "generate/chat_template.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "generate/template/interpreter.h"
#include "generate/template/parser.h"
#include "generate/tokenizer/tokenizer_file.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::uint64_t max_source_bytes = 1 << 20;
constexpr const char* special_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

// A template's message is untrusted, and may quote a whole conversation.
std::string printable(const std::string& text) {
  constexpr std::size_t longest = 300;
  std::string clean;
  for (const char c : unicode::to_valid(text.substr(0, longest))) {
    clean += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return text.size() > longest ? clean + "..." : clean;
}

[[noreturn]] void rethrow(const jinja::Failure& failure, const std::string& where, int line) {
  const std::string place = fmt::format("{}, line {}", where, line);
  switch (failure.kind) {
    case jinja::Failure::Kind::raised:
      throw Error(ErrorCode::usage, place + ": the chat template refuses the messages: " + printable(failure.message));
    case jinja::Failure::Kind::unsupported:
      throw Error(ErrorCode::unsupported, place + ": kedge's chat templates lack " + printable(failure.message));
    case jinja::Failure::Kind::error: break;
  }
  throw Error(ErrorCode::bad_file, place + ": " + printable(failure.message));
}

void check_messages(const Json& messages) {
  const char* const expected = "a list of objects with a \"role\" and a \"content\"";
  if (!messages.is_array() || messages.empty()) throw Error(ErrorCode::usage, "the messages are no list", expected);
  for (const Json& message : messages) {
    if (!message.is_object() || !member(message, "role").is_string()) {
      throw Error(ErrorCode::usage, "a message has no role", expected);
    }
  }
}

// Other names of a message's reasoning, as apply_chat_template takes them.
Json with_reasoning(const Json& message) {
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
    const Json& reasoning = member(message, key);
    if (reasoning.is_null()) continue;
    Json out = Json::object();
    out["thinking"] = reasoning;
    for (const auto& [name, value] : message.items()) out[name] = value;
    out["reasoning_content"] = reasoning;
    return out;
  }
  return message;
}

const Json* default_template(const Json& config, const std::string& where) {
  const Json& value = member(config, "chat_template");
  if (value.is_null()) return nullptr;
  if (value.is_string()) return &value;
  if (value.is_array()) {
    for (const Json& named : value) {
      if (!named.is_object() || !member(named, "template").is_string()) continue;
      if (member(named, "name") == "default") return &member(named, "template");
    }
  }
  throw Error(ErrorCode::bad_file, where + ": chat_template has no default",
              "a text, or a list of {name, template} with the name \"default\"");
}

ChatTemplate::SpecialTokens special_tokens(const Json& config) {
  ChatTemplate::SpecialTokens tokens;
  for (const char* key : special_keys) {
    const Json* token = &member(config, key);
    if (token->is_object()) token = &member(*token, "content");
    if (token->is_string()) tokens.emplace_back(key, token->get<std::string>());
  }
  return tokens;
}

}  // namespace

struct ChatTemplate::Impl {
  std::string where, hash;
  SpecialTokens special_tokens;
  TemplateOptions options;
  jinja::Body body;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::optional<ChatTemplate> ChatTemplate::open(const std::filesystem::path& directory, const TemplateOptions& options) {
  const auto config_path = directory / "tokenizer_config.json", file = directory / "chat_template.jinja";
  Json config = Json::object();
  if (std::filesystem::exists(config_path)) config = read_json(config_path);
  if (!config.is_object()) throw Error(ErrorCode::bad_file, config_path.string() + " is not a JSON object");
  if (std::filesystem::exists(file)) {
    return parse(read_file(file, max_source_bytes), file.string(), kedge::special_tokens(config), options);
  }
  const Json* source = default_template(config, config_path.string());
  if (source == nullptr) return std::nullopt;
  return parse(source->get_ref<const std::string&>(), config_path.string() + ", chat_template",
               kedge::special_tokens(config), options);
}

ChatTemplate ChatTemplate::parse(std::string_view source, const std::string& where, SpecialTokens special_tokens,
                                 const TemplateOptions& options) {
  if (source.size() > max_source_bytes) throw Error(ErrorCode::bad_file, where + " is too large", "at most 1 MiB");
  if (!unicode::is_valid(source)) throw Error(ErrorCode::bad_file, where + " is not UTF-8");
  ChatTemplate out;
  Impl& impl = *out.impl_;
  impl.where = where, impl.options = options;
  Sha256 sha;
  sha.update(source);
  for (const auto& [key, token] : special_tokens) sha.update(fmt::format("\n{}:{}:{}", key, token.size(), token));
  impl.hash = sha.hex();
  impl.special_tokens = std::move(special_tokens);
  int line = 1;
  try {
    impl.body = jinja::parse(source, line);
  } catch (const jinja::Failure& failure) {
    rethrow(failure, where, line);
  }
  return out;
}

std::string ChatTemplate::render(const Json& messages, bool add_generation_prompt) const {
  return render(messages, add_generation_prompt, Json::object());
}

std::string ChatTemplate::render(const Json& messages, bool add_generation_prompt, const Json& variables) const {
  check_messages(messages);
  if (!variables.is_object()) throw Error(ErrorCode::usage, "the chat template's variables are no object");
  jinja::Meter meter(impl_->options.max_steps, impl_->options.max_bytes);
  jinja::Interpreter interpreter(meter, impl_->options.now);
  try {
    std::vector<std::pair<std::string, jinja::Value>> names;
    Json plain = Json::array();
    for (const Json& message : messages) plain.push_back(with_reasoning(message));
    names.emplace_back("messages", jinja::Value::from_json(plain));
    names.emplace_back("add_generation_prompt", jinja::Value(add_generation_prompt));
    for (const char* name : {"tools", "documents"}) names.emplace_back(name, jinja::Value(jinja::None{}));
    for (const auto& [key, token] : impl_->special_tokens) names.emplace_back(key, jinja::Value::text(token));
    for (const auto& [key, value] : variables.items()) names.emplace_back(key, jinja::Value::from_json(value));
    return interpreter.render(impl_->body, std::move(names));
  } catch (const jinja::Failure& failure) {
    rethrow(failure, impl_->where, interpreter.line());
  }
}

std::string ChatTemplate::content_hash() const { return impl_->hash; }

}  // namespace kedge
