#include "kedge/verify.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/result.h"
#include "cli/torch_binary.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr int kGateFailed = 1;

constexpr Positional kPositionals[] = {
    {"CLAIMS", "a folder of claims, or one claim (docs/formats/claim.md); none: claims", false},
};

constexpr Flag kFlags[] = {
    {.name = "track",
     .type = FlagType::list,
     .help = "run these tracks only: T, R, X, P, PS, ...",
     .value_name = "TRACK"},
    {.name = "profile",
     .fallback = "full",
     .help = "how much is measured: quick is the claims' [quick]",
     .choices = "quick|full"},
    {.name = "data",
     .type = FlagType::path,
     .help = "the folder with the four files of MNIST, for the claims on it",
     .value_name = "DIR"},
    {.name = "out",
     .type = FlagType::path,
     .fallback = "verify-out",
     .help = "folder of the evidence bundle",
     .value_name = "DIR"},
    {.name = "resume",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "go on with the run that was stopped in --out"},
    {.name = "allow-not-run",
     .type = FlagType::boolean,
     .fallback = "false",
     .help = "claims about what this kedge does not have do not fail gate B"},
    {.name = "check",
     .type = FlagType::path,
     .help = "run nothing: compute a bundle's figures and gates again; with CLAIMS, also against the claims there",
     .value_name = "BUNDLE"},
    {.name = "latex",
     .type = FlagType::path,
     .help = "also write a LaTeX document with the verdicts, from the run or the bundle of --check",
     .value_name = "FILE"},
    {.name = "compare",
     .type = FlagType::paths,
     .help = "run nothing: what moved from one bundle to another",
     .value_name = "BUNDLE"},
};

int finish(const Arguments& arguments, const VerifyReport& report) {
  print(arguments.flag("json") ? report.summary_json : verify_text(report));
  flush_output();
  if (arguments.given("latex")) write_file_atomically(arguments.text("latex"), latex_report(report.summary_json));
  return report.passed() ? 0 : kGateFailed;
}

// Some tracks train and tune; without kedge-torch their claims are not run, and say so.
Needs needs_of(const Arguments& arguments) {
  const bool measures = !arguments.given("check") && !arguments.given("compare");
  return measures && torch_binary_is_there() ? Needs::torch : Needs::nothing;
}

int run_verify(const Arguments& arguments) {
  if (arguments.given("compare")) {
    if (arguments.given("latex")) {
      throw Error(ErrorCode::usage, "--latex and --compare are both given", "--latex with a run or --check");
    }
    const auto bundles = arguments.paths("compare");
    if (bundles.size() != 2) throw Error(ErrorCode::usage, "--compare names other than two bundles", "--compare A B");
    const auto changes = compare_bundles(bundles[0], bundles[1]);
    if (!arguments.flag("json")) {
      print(compare_text(changes));
      return 0;
    }
    const Json config = {{"bundles", Json::array({bundles[0].string(), bundles[1].string()})}};
    print(result_json("kedge.verify-compare/1", {}, 1, config, {{"changes", Json::parse(compare_json(changes))}}));
    return 0;
  }
  const bool allow_not_run = arguments.flag("allow-not-run");
  if (arguments.given("check")) {
    return finish(arguments, check_bundle(arguments.text("check"), arguments.text("CLAIMS"), allow_not_run));
  }
  VerifyOptions options;
  if (arguments.given("CLAIMS")) options.claims = arguments.text("CLAIMS");
  options.tracks = arguments.list("track");
  options.profile = arguments.text("profile");
  options.data = arguments.text("data");
  options.out = arguments.text("out");
  options.resume = arguments.flag("resume");
  options.allow_not_run = allow_not_run;
  options.runtime = runtime_options(arguments);
  const VerifyReport report = arguments.torch() != nullptr
                                  ? verify(options, arguments.torch()->tuners, arguments.torch()->train)
                                  : verify(options);
  const int code = finish(arguments, report);
  note(fmt::format("wrote index.html, summary.md and the records in {}", options.out.string()));
  return code;
}

}  // namespace

constinit const Command verify_command{
    .name = "verify",
    .summary = "Measure registered claims, judge them, and leave evidence that can be checked",
    .positionals = kPositionals,
    .flags = kFlags,
    .common = kComputeFlags,
    .example = "kedge verify claims --profile quick --allow-not-run --out evidence",
    .run = run_verify,
    .details =
        "Each claim says before the run what is measured, how often, by which test, and what would refute it; the "
        "bundle "
        "holds claims, samples, figures and a manifest. Exit code 0: all eight gates pass. 1: one does not, among them "
        "gate B when a claim was not run and gate E when a claim that must be upheld is not (docs/verify.md). Some "
        "claims "
        "need gradients: where kedge-torch stands beside kedge, it is what runs.",
    .needs_with = needs_of};

}  // namespace kedge::cli
