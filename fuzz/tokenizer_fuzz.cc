// tokenizer.json from arbitrary bytes, and arbitrary text through it.
//
// Input: a tokenizer.json, a zero byte, a text. Checked: a file is accepted or refused with an Error; encoding gives
// ids of the vocabulary; streamed text equals decoded text for byte-level decoders.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "generate/tokenizer.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string_view json = input.substr(0, zero);
  const std::string_view text = zero == std::string_view::npos ? std::string_view() : input.substr(zero + 1);
  try {
    const kedge::Tokenizer tokenizer = kedge::Tokenizer::parse(json, "input");
    const auto ids = tokenizer.encode(text.substr(0, 4096), true);
    kedge::Detokenizer detokenizer(tokenizer, false);
    std::string streamed;
    for (const std::int32_t id : ids) {
      KEDGE_CHECK(id >= 0 && id < tokenizer.vocab_size());
      streamed += detokenizer.push(id);
    }
    streamed += detokenizer.flush();
    if (tokenizer.is_byte_level()) KEDGE_CHECK(streamed == tokenizer.decode(ids));
  } catch (const kedge::Error&) {
  }
  return 0;
}
