#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "kedge/error.h"
#include "kedge/eval.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"MODEL", "a Hugging Face directory, quantized or not"}};

constexpr Flag kFlags[] = {
    text_flag("UTF-8 text files"),
    seqlen_flag("tokens per sequence"),
    kLimitFlag,
};

int run_perplexity(const Arguments& arguments) {
  PerplexityOptions options;
  options.model = arguments.text("MODEL");
  options.texts = arguments.paths("text");
  if (options.texts.empty()) throw Error(ErrorCode::usage, "no text is given", "--text FILE...");
  options.seqlen = arguments.integer("seqlen");
  options.limit = arguments.integer("limit");
  options.runtime = runtime_options(arguments);
  const PerplexityResult result = perplexity(options);
  print(arguments.flag("json") ? perplexity_json(result) : perplexity_text(result));
  if (arguments.flag("explain")) note(result.explain);
  return 0;
}

}  // namespace

constinit const Command perplexity_command{
    .name = "perplexity",
    .summary = "Measure how well a model predicts a text",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kRuntimeFlags,
    .example = "kedge perplexity models/demo-4m --text models/demo-text.txt",
    .run = run_perplexity,
    .details =
        "Each text is cut into sequences of --seqlen tokens; the remainder is dropped. Each sequence stands on "
        "its own and all its tokens but the first are scored."};

}  // namespace kedge::cli
