#include "kedge/audit.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"ORIGINAL", "the model before quantization"},
    {"QUANTIZED", "the model after it"},
};

constexpr Flag kFlags[] = {
    text_flag("UTF-8 text files"),
    {.name = "mode",
     .fallback = "free",
     .help = "free: each model on its own hidden states; local: each quantized layer on the original's; both",
     .choices = "free|local|both"},
    seqlen_flag("tokens per sequence"),
    kLimitFlag,
    {.name = "out", .type = FlagType::path, .help = "folder for report.json and report.html", .value_name = "DIR"},
    {.name = "price-int8",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "the quantized model once more with int8 activations, as a column of its own"},
    {.name = "save-traces",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "write both routing traces to --out"},
    {.name = "overwrite", .type = FlagType::boolean, .fallback = "false", .help = "replace a report that is in --out"},
};

int run_audit(const Arguments& arguments) {
  AuditOptions options;
  options.original = arguments.text("ORIGINAL");
  options.quantized = arguments.text("QUANTIZED");
  options.texts = arguments.paths("text");
  if (options.texts.empty()) throw Error(ErrorCode::usage, "no text is given", "--text FILE...");
  options.seqlen = arguments.integer("seqlen");
  options.limit = arguments.integer("limit");
  options.mode = parse_audit_mode(arguments.text("mode"));
  options.runtime = runtime_options(arguments);
  options.price_int8 = arguments.flag("price-int8");
  options.out = arguments.text("out");
  options.save_traces = arguments.flag("save-traces");
  options.overwrite = arguments.flag("overwrite");
  if (options.save_traces && options.out.empty()) {
    throw Error(ErrorCode::usage, "--save-traces is given without a folder to write to", "--out DIR");
  }
  const AuditReport report = audit(options, arguments.ranks());
  if (!arguments.is_root()) return 0;
  print(arguments.flag("json") ? audit_json(report) : audit_table(report));
  flush_output();
  if (!options.out.empty()) {
    note(
        fmt::format("wrote {} and {}", (options.out / "report.html").string(), (options.out / "report.json").string()));
  }
  return 0;
}

}  // namespace

constinit const Command audit_command{
    .name = "audit",
    .summary = "Compare where two models send their tokens, and what that costs",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kComputeFlags,
    .example = "kedge audit models/demo-4m demo-w4 --text models/demo-text.txt --out demo-out",
    .run = run_audit,
    .details = "Started by mpirun, the ranks share the sequences; the report is that of one rank.",
    .ranks = true};

}  // namespace kedge::cli
