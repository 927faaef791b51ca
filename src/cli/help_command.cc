#include "cli/commands.h"
#include "cli/help.h"
#include "cli/output.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

constexpr Positional kPositionals[] = {
    {"TOPIC", "a command's name, or markdown: the page docs/cli.md", false, false},
};

int run_help(const Arguments& arguments) {
  const std::string topic = arguments.text("TOPIC");
  if (topic.empty()) {
    print(help_overview());
  } else if (topic == "markdown") {
    print(help_markdown());
  } else if (const Command* command = find_command(topic)) {
    print(help_for(*command));
  } else {
    throw Error(ErrorCode::usage, "there is no help on \"" + topic + "\"", "a command's name or markdown");
  }
  return 0;
}

}  // namespace

constinit const Command help_command{.name = "help",
                                     .summary = "Print help on a command, or this whole page",
                                     .positionals = kPositionals,
                                     .flags = {},
                                     .common = {},
                                     .example = "kedge help quantize",
                                     .run = run_help};

}  // namespace kedge::cli
