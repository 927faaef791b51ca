#include "kedge/generate.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"MODEL", "a Hugging Face directory, quantized or not"}};

constexpr Flag kFlags[] = {
    {.name = "prompt", .short_name = 'p', .help = "the text to continue; - reads it from stdin"},
    {.name = "chat",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "the prompt is what a user says: the model's chat template frames it"},
    {.name = "system", .help = "with --chat: the system's message before it"},
    {.name = "max-tokens",
     .short_name = 'n',
     .type = FlagType::integer,
     .fallback = "128",
     .help = "new tokens at most",
     .minimum = 1,
     .maximum = 1e9},
    {.name = "temperature",
     .type = FlagType::number,
     .fallback = "0",
     .help = "0: always the likeliest token, and the next four flags have no effect",
     .minimum = 0,
     .maximum = 100},
    {.name = "top-k",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "keep the K likeliest tokens; 0: all",
     .value_name = "K",
     .minimum = 0,
     .maximum = 2147483647},
    {.name = "top-p",
     .type = FlagType::number,
     .fallback = "1",
     .help = "keep the likeliest tokens that together reach this probability",
     .value_name = "P",
     .minimum = 0,
     .maximum = 1},
    {.name = "min-p",
     .type = FlagType::number,
     .fallback = "0",
     .help = "keep tokens of at least this share of the likeliest one's probability",
     .value_name = "P",
     .minimum = 0,
     .maximum = 1},
    {.name = "seed", .type = FlagType::integer, .fallback = "0", .help = "of the draws", .minimum = 0, .maximum = 9e15},
    {.name = "ignore-eos", .type = FlagType::boolean, .fallback = "false", .help = "go on after an end-of-text token"},
    {.name = "stream", .type = FlagType::boolean, .fallback = "true", .help = "print text as it comes"},
};

GenerateOptions options_from(const Arguments& arguments) {
  GenerateOptions options;
  options.model = arguments.text("MODEL");
  options.prompt = arguments.text("prompt");
  if (!arguments.given("prompt")) {
    throw Error(ErrorCode::usage, "no prompt is given", "-p TEXT, or -p - to read it from stdin");
  }
  if (options.prompt == "-") options.prompt = read_stdin();
  options.chat = arguments.flag("chat");
  options.system = arguments.text("system");
  if (!options.chat && !options.system.empty()) {
    throw Error(ErrorCode::usage, "--system is given without --chat", "both, or the whole text in --prompt");
  }
  options.max_new_tokens = arguments.integer("max-tokens");
  options.ignore_eos = arguments.flag("ignore-eos");
  options.sampling.temperature = static_cast<float>(arguments.number("temperature"));
  options.sampling.top_k = static_cast<int>(arguments.integer("top-k"));
  options.sampling.top_p = static_cast<float>(arguments.number("top-p"));
  options.sampling.min_p = static_cast<float>(arguments.number("min-p"));
  options.sampling.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  options.runtime = runtime_options(arguments);
  return options;
}

void print_json(const GenerateOptions& options, const GenerateResult& result) {
  const Json config = {{"model", options.model.string()},
                       {"prompt", options.prompt},
                       {"chat", options.chat},
                       {"system", options.system},
                       {"max_tokens", options.max_new_tokens},
                       {"temperature", options.sampling.temperature},
                       {"top_k", options.sampling.top_k},
                       {"top_p", options.sampling.top_p},
                       {"min_p", options.sampling.min_p},
                       {"seed", options.sampling.seed},
                       {"ignore_eos", options.ignore_eos}};
  const Json results = {{"text", result.text},
                        {"prompt_ids", result.prompt_ids},
                        {"token_ids", result.token_ids},
                        {"finish_reason", result.finish_reason},
                        {"load_seconds", result.load_seconds},
                        {"prefill_seconds", result.prefill_seconds},
                        {"decode_seconds", result.decode_seconds},
                        {"prefill_tokens_per_second", result.prefill_tokens_per_second()},
                        {"decode_tokens_per_second", result.decode_tokens_per_second()},
                        {"weight_bytes", result.weight_bytes},
                        {"kv_bytes", result.kv_bytes}};
  print(result_json("kedge.run/1", options.runtime, result.threads, config, results));
}

int run_run(const Arguments& arguments) {
  GenerateOptions options = options_from(arguments);
  const bool json = arguments.flag("json"), stream = arguments.flag("stream") && !json;
  if (stream) {
    options.on_text = [](std::string_view text) {
      print(text);
      flush_output();
    };
  }
  const GenerateResult result = generate(options);
  if (json) {
    print_json(options, result);
  } else {
    print(stream ? std::string("\n") : result.text + "\n");
  }
  flush_output();  // before the notes
  if (arguments.flag("explain")) note(result.explain);
  note(fmt::format(
      "{} prompt tokens at {:.1f}/s, {} new tokens at {:.1f}/s ({}, {} threads), weights {}, loaded in {:.2f} s",
      result.prompt_ids.size(), result.prefill_tokens_per_second(), result.token_ids.size(),
      result.decode_tokens_per_second(), result.isa, result.threads, megabytes(result.weight_bytes),
      result.load_seconds));
  return 0;
}

}  // namespace

constinit const Command run_command{.name = "run",
                                    .summary = "Continue a prompt",
                                    .positionals = kPositionals,
                                    .flags = kFlags,
                                    .common = kRuntimeFlags,
                                    .example = "kedge run models/demo-4m -p \"It was a dark and\" -n 32",
                                    .run = run_run,
                                    .details = "stdout gets the new text alone, without the prompt."};

}  // namespace kedge::cli
