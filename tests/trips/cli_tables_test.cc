// The commands' tables: what help, docs/cli.md and completion print, and that every flag can stand anywhere.
#include <cstdlib>
#include <set>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/parse.h"
#include "process.h"

namespace kedge {
namespace {

using trips::Result;
using trips::run;
using trips::slurp;
using trips::spit;
using trips::TemporaryFolder;

TEST(Cli, HelpListsEveryCommandAndFlag) {
  const Result overview = run({"--help"});
  EXPECT_EQ(overview.exit_code, 0);
  for (const cli::Command* command : cli::commands()) {
    EXPECT_NE(overview.out.find(std::string("  ") + command->name), std::string::npos) << command->name;
    const Result help = run({command->name, "--help"});
    EXPECT_EQ(help.exit_code, 0) << help.err;
    for (const auto flags : {command->flags, command->common}) {
      for (const cli::Flag& flag : flags) {
        EXPECT_NE(help.out.find(std::string("--") + flag.name), std::string::npos) << command->name << " " << flag.name;
      }
    }
    EXPECT_EQ(run({"help", command->name}).out, help.out);
  }
}

TEST(Cli, DocsPageIsTheTables) {
  const Result page = run({"help", "markdown"});
  EXPECT_EQ(page.exit_code, 0);
  EXPECT_EQ(page.out, slurp(KEDGE_SOURCE_DIR "/docs/cli.md")) << "run: kedge help markdown > docs/cli.md";
}

TEST(Cli, TablesAreSound) {
  for (const cli::Command* command : cli::commands()) {
    std::set<std::string> names;
    std::set<char> shorts;
    for (const auto flags : {command->flags, command->common}) {
      for (const cli::Flag& flag : flags) {
        SCOPED_TRACE(std::string(command->name) + " --" + flag.name);
        EXPECT_TRUE(names.insert(flag.name).second);
        EXPECT_TRUE(flag.short_name == 0 || shorts.insert(flag.short_name).second);
        EXPECT_NE(std::string(flag.help), "");
        if (*flag.fallback == 0) continue;
        cli::Arguments arguments(*command);  // a default must pass its own check
        EXPECT_NO_THROW(arguments.set(flag, {flag.fallback}, flag.name));
      }
    }
  }
}

// A flag takes one word; what follows is the command's.
TEST(Cli, FlagsMayStandFirst) {
  const auto sample = [](const char* choices, const char* other) {
    const std::vector<std::string> all = cli::split_choices(choices);
    return all.empty() ? std::string(other) : all.front();
  };
  int flags = 0;
  for (const cli::Command* command : cli::commands()) {
    for (const auto table : {command->flags, command->common}) {
      for (const cli::Flag& flag : table) {
        const bool one_word = flag.type != cli::FlagType::boolean && flag.type != cli::FlagType::list &&
                              flag.type != cli::FlagType::paths;
        const bool recipe = command->recipe_flag != nullptr && std::string_view(command->recipe_flag) == flag.name;
        if (!one_word || recipe || command->positionals.empty()) continue;
        ++flags;
        const std::string value = *flag.fallback != 0 ? flag.fallback : sample(flag.choices, "1");
        std::vector<std::string> words = {std::string("--") + flag.name, value};
        for (const cli::Positional& positional : command->positionals) words.push_back(sample(positional.choices, "x"));
        const std::optional<cli::Arguments> arguments = cli::parse(*command, words);
        ASSERT_TRUE(arguments.has_value());
        EXPECT_EQ(arguments->text(flag.name), value) << command->name;
        for (const cli::Positional& positional : command->positionals) {
          EXPECT_EQ(arguments->text(positional.name), sample(positional.choices, "x")) << command->name << flag.name;
        }
      }
    }
  }
  EXPECT_GT(flags, 100);
}

TEST(Cli, CompletionScriptsAreValidShell) {
  const TemporaryFolder folder;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const Result result = run({"completion", shell});
    EXPECT_EQ(result.exit_code, 0);
    for (const cli::Command* command : cli::commands()) {
      EXPECT_NE(result.out.find(command->name), std::string::npos) << shell << " " << command->name;
    }
    EXPECT_NE(result.out.find("avx512-vnni"), std::string::npos) << shell;
    spit(folder / shell, result.out);
    if (std::system(("command -v " + shell + " > /dev/null 2>&1").c_str()) != 0) continue;
    EXPECT_EQ(std::system((shell + " -n " + (folder / shell).string()).c_str()), 0) << shell;
  }
  const std::string ask = "bash -c 'source " + (folder / "bash").string() +
                          "; COMP_WORDS=(kedge run M --isa av); COMP_CWORD=4; _kedge; echo ${COMPREPLY[*]}' > " +
                          (folder / "answer").string();
  ASSERT_EQ(std::system(ask.c_str()), 0);
  EXPECT_EQ(slurp(folder / "answer"), "avx2 avx512 avx512-vnni\n");
}

}  // namespace
}  // namespace kedge
