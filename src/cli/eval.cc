#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "kedge/error.h"
#include "kedge/evaluate.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {{"MODEL", "a Hugging Face directory, quantized or not", false}};

constexpr Flag kFlags[] = {
    {.name = "tasks",
     .type = FlagType::list,
     .help = "tasks by name, between commas; or TOML files that define one, or folders of them",
     .value_name = "NAME"},
    {.name = "data-dir",
     .type = FlagType::path,
     .help = "folder of the tasks' records; without it, a small subset that is part of kedge is read",
     .value_name = "DIR"},
    {.name = "num-fewshot",
     .type = FlagType::integer,
     .fallback = "-1",
     .help = "examples before each question; -1: as each task says",
     .minimum = -1,
     .maximum = 1000},
    {.name = "limit",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "records per task, from the front; 0: all",
     .minimum = 0,
     .maximum = 1e12},
    {.name = "fewshot-seed",
     .type = FlagType::integer,
     .fallback = "1234",
     .help = "of the choice of examples",
     .minimum = 0,
     .maximum = 4294967295.0},
    {.name = "confidence",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "also print how far the answers' confidences can be trusted"},
    {.name = "votes",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "also answer by self-consistency, with so many sampled answers; 0: not",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "temperature",
     .type = FlagType::number,
     .fallback = "0.7",
     .help = "of the sampled answers",
     .minimum = 0.01,
     .maximum = 100},
    {.name = "mc-samples",
     .type = FlagType::integer,
     .fallback = "128",
     .help = "masks drawn for each likelihood of a masked-diffusion model",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "seed",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "of the sampled answers and masks",
     .minimum = 0,
     .maximum = 1e15},
    {.name = "out",
     .type = FlagType::path,
     .help = "folder for results.json and one samples file per task; a run that was stopped is resumed there",
     .value_name = "DIR"},
    {.name = "overwrite", .type = FlagType::boolean, .fallback = "false", .help = "replace results that are in --out"},
    {.name = "list", .type = FlagType::boolean, .fallback = "false", .help = "print the names of kedge's tasks"},
};

std::vector<std::string> split_at_commas(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const std::string& word : words) {
    for (std::size_t begin = 0; begin <= word.size();) {
      const std::size_t end = std::min(word.find(',', begin), word.size());
      if (end > begin) out.push_back(word.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return out;
}

int run_eval(const Arguments& arguments) {
  if (arguments.flag("list")) {
    for (const std::string& name : bundled_tasks()) print(name + "\n");
    return 0;
  }
  EvaluateOptions options;
  options.model = arguments.text("MODEL");
  if (options.model.empty()) throw Error(ErrorCode::usage, "no model is given", "kedge eval MODEL --tasks NAME,...");
  options.tasks = split_at_commas(arguments.list("tasks"));
  options.data_dir = arguments.text("data-dir");
  options.num_fewshot = arguments.integer("num-fewshot");
  options.limit = arguments.integer("limit");
  options.fewshot_seed = static_cast<std::uint32_t>(arguments.integer("fewshot-seed"));
  options.votes = arguments.integer("votes");
  options.temperature = arguments.number("temperature");
  options.mc_samples = arguments.integer("mc-samples");
  options.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  options.out = arguments.text("out");
  options.overwrite = arguments.flag("overwrite");
  options.runtime = runtime_options(arguments);
  const EvaluateResult result = evaluate(options, arguments.ranks());
  if (!arguments.is_root()) return 0;
  print(arguments.flag("json") ? result.json : evaluate_table(result));
  if (!arguments.flag("json") && (arguments.flag("confidence") || options.votes > 0)) {
    print("\n" + evaluate_confidence_table(result));
  }
  flush_output();
  if (!options.out.empty()) {
    note(fmt::format("wrote results.json and a samples file per task in {}", options.out.string()));
  }
  return 0;
}

}  // namespace

constinit const Command eval_command{.name = "eval",
                                     .summary = "Measure how well a model answers benchmarks",
                                     .positionals = kPositionals,
                                     .flags = kFlags,
                                     .common = kComputeFlags,
                                     .example = "kedge eval models/demo-4m --tasks hellaswag,piqa,blimp --limit 100",
                                     .run = run_eval,
                                     .details =
                                         "Prompts, answers, metrics and the drawing of examples follow "
                                         "lm-evaluation-harness. Log-likelihoods are computed "
                                         "many at a time, and what prompts have in common once. Started by mpirun, the "
                                         "ranks share the requests; the results are those of one rank.",
                                     .ranks = true};

}  // namespace kedge::cli
