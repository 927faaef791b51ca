#include "kedge/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/interrupt.h"
#include "base/json.h"
#include "generate/chat_template.h"
#include "generate/sampler.h"
#include "generate/session.h"
#include "generate/tokenizer.h"
#include "kedge/error.h"

namespace kedge {
namespace {

class Stopwatch {
 public:
  /// Seconds since the last call, or since construction.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::int32_t bos_token_id(const Tokenizer& tokenizer, const Checkpoint& checkpoint) {
  if (tokenizer.bos_id() >= 0) return tokenizer.bos_id();
  for (const Json* config : {&checkpoint.generation_config(), &checkpoint.config()}) {
    if (!config->is_object()) continue;
    const auto id = json_get_or<std::int64_t>(*config, "bos_token_id", -1, checkpoint.directory().string());
    if (id >= 0 && id <= 0x7FFFFFFF) return static_cast<std::int32_t>(id);
  }
  throw Error(ErrorCode::usage, "the prompt is empty and the model has no bos token to start from", {},
              "give a prompt");
}

/// The text that the model continues.
std::string prompt_text(const GenerateOptions& options) {
  if (!options.chat) return options.prompt;
  const std::optional<ChatTemplate> chat = ChatTemplate::open(options.model);
  if (!chat) {
    throw Error(ErrorCode::unsupported, options.model.string() + " has no chat template",
                "a chat_template in tokenizer_config.json, or chat_template.jinja",
                "leave --chat out and give the text to continue");
  }
  Json messages = Json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  return chat->render(messages, /*add_generation_prompt=*/true);
}

std::vector<std::int32_t> encode_prompt(const std::string& text, const GenerateOptions& options,
                                        const Tokenizer& tokenizer, const LoadedModel& model) {
  std::vector<std::int32_t> ids = tokenizer.encode(text, options.add_special_tokens && !options.chat);
  if (ids.empty()) ids.push_back(bos_token_id(tokenizer, model.checkpoint));
  const std::int64_t longest = model.model.spec().max_position_embeddings;
  if (static_cast<std::int64_t>(ids.size()) >= longest) {
    throw Error(ErrorCode::usage, "the prompt has " + std::to_string(ids.size()) + " tokens",
                "fewer than the model's context of " + std::to_string(longest), "shorten the prompt");
  }
  return ids;
}

SamplingParams sampling_params(const SamplingOptions& s) {
  return {.temperature = s.temperature, .top_k = s.top_k, .top_p = s.top_p, .min_p = s.min_p, .seed = s.seed};
}

// Text as it comes: to the callback and into the result.
class TextSink {
 public:
  TextSink(const Tokenizer& tokenizer, const GenerateOptions& options, std::string& text)
      : detokenizer_(tokenizer, options.skip_special_tokens), options_(options), text_(text) {}
  void push(std::int32_t id) { put(detokenizer_.push(id)); }
  void finish() { put(detokenizer_.flush()); }

 private:
  void put(const std::string& piece) {
    if (piece.empty()) return;
    text_ += piece;
    if (options_.on_text) options_.on_text(piece);
  }
  Detokenizer detokenizer_;
  const GenerateOptions& options_;
  std::string& text_;
};

void run_session(const GenerateOptions& options, const LoadedModel& model, const Tokenizer& tokenizer, Stopwatch& watch,
                 GenerateResult& result) {
  const ModelSpec& spec = model.model.spec();
  const auto prompt_size = static_cast<std::int64_t>(result.prompt_ids.size());
  // The last new token needs no position: nothing is predicted from it.
  const std::int64_t new_tokens = std::min(options.max_new_tokens, spec.max_position_embeddings - prompt_size + 1);
  const std::int64_t context = prompt_size + new_tokens - 1;
  const std::vector<std::int32_t> eos =
      options.ignore_eos ? std::vector<std::int32_t>{} : eos_token_ids(model.checkpoint);
  Sampler sampler(sampling_params(options.sampling), spec.vocab_size, model.model.options().isa);
  Session session(model, context);
  TextSink sink(tokenizer, options, result.text);
  result.kv_bytes = SequenceState::bytes_for(spec, context);
  result.token_ids.reserve(static_cast<std::size_t>(new_tokens));
  result.finish_reason = "length";
  watch.lap();
  session.prefill(result.prompt_ids, options.prefill_batch);
  result.prefill_seconds = watch.lap();
  while (true) {
    throw_if_interrupted();
    const std::int32_t id = sampler.sample(session.logits());
    result.token_ids.push_back(id);
    sink.push(id);
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) {
      result.finish_reason = "stop";
      break;
    }
    if (static_cast<std::int64_t>(result.token_ids.size()) == new_tokens) break;
    session.decode(id);
  }
  sink.finish();
  result.decode_seconds = watch.lap();
}

double rate(std::size_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

}  // namespace

double GenerateResult::prefill_tokens_per_second() const noexcept { return rate(prompt_ids.size(), prefill_seconds); }
double GenerateResult::decode_tokens_per_second() const noexcept {
  return token_ids.size() < 2 ? 0 : rate(token_ids.size() - 1, decode_seconds);
}

GenerateResult generate(const GenerateOptions& options) {
  if (options.max_new_tokens < 1) {
    throw Error(ErrorCode::usage, "the number of new tokens is " + std::to_string(options.max_new_tokens),
                "at least 1");
  }
  Sampler(sampling_params(options.sampling), 1);  // complains before a large model is loaded
  const LoadOptions load_options = make_load_options(options.runtime);
  Stopwatch watch;
  ThreadPool threads(options.runtime.threads);
  const Tokenizer tokenizer = Tokenizer::open(options.model);
  const std::string text = prompt_text(options);
  const LoadedModel model = load_model(options.model, load_options, threads);
  GenerateResult result;
  result.load_seconds = watch.lap();
  result.weight_bytes = model.model.num_bytes();
  result.isa = isa_name(load_options.isa);
  result.threads = threads.size();
  result.explain = model.model.explain();
  result.prompt_ids = encode_prompt(text, options, tokenizer, model);
  run_session(options, model, tokenizer, watch, result);
  return result;
}

TokenizeResult tokenize(const std::filesystem::path& model, std::string_view text, bool add_special_tokens) {
  const Tokenizer tokenizer = Tokenizer::open(model);
  TokenizeResult result;
  result.ids = tokenizer.encode(text, add_special_tokens);
  result.tokens.reserve(result.ids.size());
  for (const std::int32_t id : result.ids) result.tokens.push_back(tokenizer.id_to_token(id));
  return result;
}

std::string detokenize(const std::filesystem::path& model, const std::vector<std::int32_t>& ids,
                       bool skip_special_tokens) {
  const Tokenizer tokenizer = Tokenizer::open(model);
  for (const std::int32_t id : ids) {
    if (tokenizer.id_to_token(id).empty()) {
      throw Error(ErrorCode::usage, "the id " + std::to_string(id) + " is no token of " + model.string(),
                  "ids below " + std::to_string(tokenizer.vocab_size()));
    }
  }
  return tokenizer.decode(ids, skip_special_tokens);
}

}  // namespace kedge
