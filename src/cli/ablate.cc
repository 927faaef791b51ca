#include "kedge/ablate.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/torch_binary.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"RECIPE", "a TOML file: models, texts, seeds, schemes, methods (docs/formats/ablation.md)"},
};

constexpr Flag kFlags[] = {
    {.name = "out",
     .type = FlagType::path,
     .help = "folder for the records and the report; none: the recipe's name and \"-out\"",
     .value_name = "DIR"},
    {.name = "resume",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "take the finished runs that are in --out, and do the others"},
    {.name = "keep",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "keep the quantized models, in models/ of --out"},
    {.name = "verbose",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "notes, progress and warnings of each run as they come"},
};

// Methods that tune by gradients run there; the recipe is read later.
Needs needs_of(const Arguments&) { return torch_binary_is_there() ? Needs::torch : Needs::nothing; }

int run_ablate(const Arguments& arguments) {
  AblateOptions options;
  options.recipe = arguments.text("RECIPE");
  options.out = arguments.text("out");
  if (options.out.empty()) options.out = options.recipe.stem().string() + "-out";
  options.resume = arguments.flag("resume");
  options.keep = arguments.flag("keep");
  options.verbose = arguments.flag("verbose");
  options.runtime = runtime_options(arguments);
  const AblationReport report = ablate(options, arguments.torch() != nullptr ? arguments.torch()->tuners : nullptr);
  print(arguments.flag("json") ? ablation_json(report) : ablation_table(report));
  flush_output();
  note(fmt::format("wrote ablation.html, ablation.json and ablation.md in {}", options.out.string()));
  return 0;
}

}  // namespace

constinit const Command ablate_command{
    .name = "ablate",
    .summary = "Compare quantization methods over seeds and schemes, everything else held equal",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kComputeFlags,
    .example = "kedge ablate recipes/ablation-methods.toml --out ablation",
    .run = run_ablate,
    .details =
        "Each run quantizes and audits one model with one method, scheme and seed, and leaves one JSON record; a run "
        "that is on record is never done twice. Differences to the baseline are paired by seed and have 95 % "
        "intervals. Methods that tune by gradients need kedge-torch, which is what runs where it stands beside kedge.",
    .needs_with = needs_of};

}  // namespace kedge::cli
