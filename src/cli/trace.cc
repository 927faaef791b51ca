#include <fmt/format.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"
#include "kedge/audit.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"MODEL", "a Hugging Face directory, quantized or not"}};

constexpr Flag kFlags[] = {
    {.name = "ids", .type = FlagType::path, .help = "safetensors file with input_ids [S, L]", .value_name = "FILE"},
    text_flag("UTF-8 text files, in place of --ids"),
    {.name = "out", .type = FlagType::path, .help = "the trace to write (safetensors)", .value_name = "FILE"},
    {.name = "logits", .type = FlagType::boolean, .fallback = "false", .help = "also the logits of all tokens"},
    {.name = "hidden-states",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "also the embeddings and each layer's output"},
    {.name = "decode-from",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "decode tokens from this position on one at a time, with the cache; 0: one pass",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "one-by-one",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "a forward pass for each sequence, in place of one for all"},
    seqlen_flag("tokens per sequence of --text"),
    kLimitFlag,
    {.name = "overwrite", .type = FlagType::boolean, .fallback = "false", .help = "replace --out where it is there"},
};

int run_trace(const Arguments& arguments) {
  TraceOptions options;
  options.model = arguments.text("MODEL");
  options.ids = arguments.text("ids");
  options.texts = arguments.paths("text");
  options.out = arguments.text("out");
  if (options.ids.empty() == options.texts.empty()) {
    throw Error(ErrorCode::usage, options.ids.empty() ? "no tokens are given" : "both --ids and --text are given",
                "either --ids FILE or --text FILE...");
  }
  if (options.out.empty()) throw Error(ErrorCode::usage, "--out is missing", "the file to write");
  options.seqlen = arguments.integer("seqlen");
  options.limit = arguments.integer("limit");
  options.logits = arguments.flag("logits");
  options.hidden_states = arguments.flag("hidden-states");
  options.one_by_one = arguments.flag("one-by-one");
  options.decode_from = arguments.integer("decode-from");
  options.overwrite = arguments.flag("overwrite");
  options.runtime = runtime_options(arguments);
  const TraceReport report = trace(options);
  if (arguments.flag("json")) {
    const Json config = {{"model", options.model.string()},
                         {"out", options.out.string()},
                         {"limit", options.limit},
                         {"decode_from", options.decode_from}};
    const Json results = {{"sequences", report.sequences},
                          {"tokens", report.tokens},
                          {"moe_layers", report.moe_layers},
                          {"file_bytes", report.file_bytes}};
    print(result_json("kedge.trace-summary/1", options.runtime, options.runtime.threads, config, results));
  }
  note(fmt::format("wrote {}: {} sequences, {} tokens, {} routers, {}", options.out.string(), report.sequences,
                   report.tokens, report.moe_layers.size(), megabytes(report.file_bytes)));
  return 0;
}

}  // namespace

constinit const Command trace_command{
    .name = "trace",
    .summary = "Record which experts a model's routers choose",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kComputeFlags,
    .example = "kedge trace models/demo-4m --text models/demo-text.txt --out demo.trace.safetensors --limit 4",
    .run = run_trace};

}  // namespace kedge::cli
