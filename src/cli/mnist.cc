#include "kedge/mnist.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "kedge/train.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {.name = "WHAT", .help = "report: train, quantize and compare", .is_path = false, .choices = "report"},
};

constexpr Flag kFlags[] = {
    {.name = "data", .type = FlagType::path, .help = "the folder with the four files of MNIST", .value_name = "DIR"},
    {.name = "out", .type = FlagType::path, .help = "folder for the records and the report", .value_name = "DIR"},
    {.name = "seeds",
     .type = FlagType::integer,
     .fallback = "5",
     .help = "trainings of each network",
     .minimum = 1,
     .maximum = 1000},
    {.name = "epochs",
     .type = FlagType::integer,
     .fallback = "6",
     .help = "passes over the training images",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "latency-rounds",
     .type = FlagType::integer,
     .fallback = "300",
     .help = "timed passes of each network, batch size and seed",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "resume",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "take the finished runs that are in --out, and do the others"},
    {.name = "keep", .type = FlagType::boolean, .fallback = "false", .help = "keep the models, in models/ of --out"},
    {.name = "threads",
     .type = FlagType::integer,
     .fallback = "0",
     .help = "trainings at once, each with one thread; 0: one per CPU that kedge may use",
     .minimum = 0,
     .maximum = 4096},
};

Needs needs_of(const Arguments&) { return Needs::torch; }

int run_mnist(const Arguments& arguments) {
  KEDGE_CHECK(arguments.torch() != nullptr);
  MnistReportOptions options;
  options.data = arguments.text("data");
  options.out = arguments.text("out");
  options.seeds = arguments.integer("seeds");
  options.epochs = arguments.integer("epochs");
  options.latency_rounds = arguments.integer("latency-rounds");
  options.resume = arguments.flag("resume");
  options.keep = arguments.flag("keep");
  options.threads = static_cast<int>(arguments.integer("threads"));
  const MnistReport report = mnist_report(options, arguments.torch()->train);
  print(arguments.flag("json") ? report.json : report.table);
  flush_output();
  note(fmt::format("wrote mnist.html, mnist.json and mnist.md in {} ({:.0f} s)", options.out.string(), report.seconds));
  return 0;
}

}  // namespace

constinit const Command mnist_command{
    .name = "mnist",
    .summary = "Train, quantize and compare dense and sparse classifiers of MNIST over seeds",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kPlainFlags,
    .example = "kedge mnist report --data mnist --out mnist-out",
    .run = run_mnist,
    .details =
        "Runs in kedge-torch. Six networks per seed, each in fp32 and quantized; every run leaves one JSON record, "
        "and "
        "one that is on record is not done again with --resume. Static scales come from training images alone.",
    .needs_with = needs_of};

}  // namespace kedge::cli
