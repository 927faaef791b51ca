#include "kedge/tokenizer.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {.name = "ACTION", .help = "train: learn one from texts", .is_path = false, .choices = "train"},
    {"OUT", "folder for tokenizer.json and tokenizer_config.json"},
};

constexpr Flag kFlags[] = {
    text_flag("UTF-8 text files to learn from, line by line; or .jsonl"),
    {.name = "field", .fallback = "text", .help = "the member of a JSON line that holds its text", .value_name = "NAME"},
    {.name = "vocab-size",
     .type = FlagType::integer,
     .fallback = "30000",
     .help = "tokens at most, the 256 bytes and the special ones included",
     .minimum = 256,
     .maximum = 1 << 30},
    {.name = "min-frequency",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "a pair that is rarer is not merged",
     .minimum = 0,
     .maximum = 1e12},
    {.name = "special-tokens",
     .type = FlagType::list,
     .help = "they get the first ids; the first is bos, eos and pad; none: <|endoftext|>",
     .value_name = "TOKEN"},
    {.name = "pattern", .help = "a regular expression whose matches are words; none: GPT-2's", .value_name = "REGEX"},
};

int run_tokenizer(const Arguments& arguments) {
  TrainTokenizerOptions options;
  options.out = arguments.text("OUT");
  options.texts = arguments.paths("text");
  options.field = arguments.text("field");
  options.vocab_size = arguments.integer("vocab-size");
  options.min_frequency = arguments.integer("min-frequency");
  if (arguments.given("special-tokens")) options.special_tokens = arguments.list("special-tokens");
  options.pattern = arguments.text("pattern");
  const TrainTokenizerReport report = train_tokenizer(options);
  if (arguments.flag("json")) {
    Json texts = Json::array();
    for (const auto& text : options.texts) texts.push_back(text.string());
    const Json config = {{"out", options.out.string()},
                         {"texts", std::move(texts)},
                         {"vocab_size", options.vocab_size},
                         {"min_frequency", options.min_frequency},
                         {"special_tokens", options.special_tokens},
                         {"pattern", options.pattern}};
    print(result_json("kedge.tokenizer/1", {}, 1, config,
                      {{"vocab_size", report.vocab_size},
                       {"merges", report.merges},
                       {"words", report.words},
                       {"bytes", report.bytes},
                       {"bytes_per_token", report.bytes_per_token},
                       {"content_hash", report.content_hash},
                       {"seconds", report.seconds}}));
  } else {
    print(fmt::format("{} tokens, {} merges from {} different words; {:.3f} bytes of the texts per token\n",
                      report.vocab_size, report.merges, report.words, report.bytes_per_token));
  }
  if (report.vocab_size < options.vocab_size) {
    note(fmt::format("the texts give no more than {} tokens", report.vocab_size));
  }
  note(fmt::format("wrote {} in {:.1f} s", (options.out / "tokenizer.json").string(), report.seconds));
  return 0;
}

}  // namespace

constinit const Command tokenizer_command{
    .name = "tokenizer",
    .summary = "Learn a byte-level BPE tokenizer from texts",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kPlainFlags,
    .example = "kedge tokenizer train my-tokenizer --text models/demo-text.txt --vocab-size 2048",
    .run = run_tokenizer,
    .details = "The result is that of Hugging Face's tokenizers (BpeTrainer with ByteLevel) on the same lines."};

}  // namespace kedge::cli
