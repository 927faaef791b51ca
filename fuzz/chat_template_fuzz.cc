// Chat templates from arbitrary bytes.
//
// Input: a template; then perhaps a zero byte and messages as JSON. Checked: it is rendered or refused with an Error;
// the text is valid UTF-8, within the limit, and the same a second time.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "generate/chat_template.h"
#include "generate/tokenizer/unicode.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string_view source = input.substr(0, zero);
  const std::string_view json = zero == std::string_view::npos
                                    ? R"([{"role": "system", "content": "A b"}, {"role": "user", "content": "é"}])"
                                    : input.substr(zero + 1);
  const kedge::TemplateOptions limits{.now = 0, .max_steps = 20'000'000, .max_bytes = 1 << 20};
  try {
    const kedge::ChatTemplate chat =
        kedge::ChatTemplate::parse(source, "input", {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, limits);
    const kedge::Json messages = kedge::parse_json(json, "messages");
    const std::string text = chat.render(messages, true);
    KEDGE_CHECK(text.size() <= limits.max_bytes && kedge::unicode::is_valid(text));
    KEDGE_CHECK(chat.render(messages, true) == text);
  } catch (const kedge::Error&) {
  }
  return 0;
}
