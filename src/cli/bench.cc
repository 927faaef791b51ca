#include "kedge/bench.h"

#include <filesystem>

#include "cli/commands.h"
#include "cli/output.h"
#include "kedge/bench_mcqsmoe.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"MODEL", "a Hugging Face directory, or --shape; \"mcqsmoe\": the layers of the MCQSMoE papers", false}};

constexpr Flag kFlags[] = {
    {.name = "shape", .help = "random weights of a known model's shape, such as olmoe-1b-7b", .value_name = "NAME"},
    {.name = "scheme", .fallback = "w4a16-g128", .help = "of random weights: a quantization scheme, bf16 or f32"},
    {.name = "prefill",
     .type = FlagType::integer,
     .fallback = "512",
     .help = "prompt tokens; 0: none",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "decode",
     .type = FlagType::integer,
     .fallback = "64",
     .help = "tokens after the prompt; 0: none",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "batch",
     .type = FlagType::integer,
     .fallback = "512",
     .help = "prompt tokens per pass",
     .minimum = 1,
     .maximum = 1e9},
    {.name = "repetitions",
     .type = FlagType::integer,
     .fallback = "3",
     .help = "timed passes, after one that is not counted",
     .value_name = "R",
     .minimum = 1,
     .maximum = 10000},
    {.name = "anchor-form",
     .fallback = "fused",
     .help = "of mcqsmoe: A + D made as it is read, x A^T and x D^T apart, or one fp32 matrix per expert",
     .choices = "fused|split|decoded"},
    {.name = "tokens",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "of mcqsmoe: tokens of a batch; 0: the papers', 32 and 64",
     .minimum = 0,
     .maximum = 65536},
    {.name = "limits", .type = FlagType::boolean, .fallback = "true", .help = "measure the machine's own limits first"},
    {.name = "seed",
     .type = FlagType::integer,
     .fallback = "1",
     .help = "of random weights and tokens",
     .minimum = 0,
     .maximum = 9e15},
};

constexpr const char* kMcqsMoe = "mcqsmoe";

int run_mcqsmoe(const Arguments& arguments) {
  McqsMoeBenchOptions options;
  options.form = arguments.text("anchor-form");
  options.tokens = arguments.integer("tokens");
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  options.repetitions = static_cast<int>(arguments.integer("repetitions"));
  options.limits = arguments.flag("limits");
  options.runtime = runtime_options(arguments);
  if (!arguments.text("shape").empty()) {
    throw Error(ErrorCode::usage, "mcqsmoe and --shape are both given", "one of the two");
  }
  const McqsMoeBenchReport report = bench_mcqsmoe(options);
  print(arguments.flag("json") ? mcqsmoe_json(report) : mcqsmoe_text(report));
  return 0;
}

int run_bench(const Arguments& arguments) {
  // A folder of that name is a model all the same.
  if (arguments.text("MODEL") == kMcqsMoe && !std::filesystem::exists(kMcqsMoe)) return run_mcqsmoe(arguments);
  BenchOptions options;
  options.model = arguments.text("MODEL");
  options.shape = arguments.text("shape");
  options.scheme = arguments.text("scheme");
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  options.prefill = arguments.integer("prefill");
  options.decode = arguments.integer("decode");
  options.batch = arguments.integer("batch");
  options.repetitions = static_cast<int>(arguments.integer("repetitions"));
  options.limits = arguments.flag("limits");
  options.explain = arguments.flag("explain");
  options.runtime = runtime_options(arguments);
  const BenchReport report = bench(options);
  print(arguments.flag("json") ? bench_json(report) : bench_text(report));
  return 0;
}

}  // namespace

constinit const Command bench_command{.name = "bench",
                                      .summary = "Measure prefill and decode speed, beside the machine's own limits",
                                      .positionals = kPositionals,
                                      .flags = kFlags,
                                      .common = kRuntimeFlags,
                                      .example = "kedge bench --shape olmoe-1b-7b --scheme w4a16-g128",
                                      .run = run_bench};

}  // namespace kedge::cli
