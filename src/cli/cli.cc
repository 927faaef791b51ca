#include "cli/cli.h"

#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/version.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "cli/ranks.h"
#include "cli/torch_binary.h"
#include "comm/communicator.h"
#include "kedge/error.h"

namespace kedge::cli {
namespace {

// Beside ErrorCode's (docs/exit-codes.md).
constexpr int kOutOfMemory = 9;
constexpr int kBug = 70;          // EX_SOFTWARE of sysexits.h
constexpr int kBrokenPipe = 141;  // as a shell shows a process that SIGPIPE ended

std::string version_text(const TorchPart* torch) {
  return std::string("kedge ") + version() + " (git " + git_hash() + ", " + build_type() + ", " +
         isa_name(detect_isa()) + (torch == nullptr ? "" : ", libtorch " + torch->version) + ")\n";
}

[[noreturn]] void unknown_command(const std::string& name) {
  std::string known;
  for (const Command* command : commands()) known += (known.empty() ? "" : ", ") + std::string(command->name);
  throw Error(ErrorCode::usage, "there is no command \"" + name + "\"", "one of " + known);
}

int dispatch(const std::vector<std::string>& words, const TorchPart* torch, std::unique_ptr<Communicator>& ranks) {
  if (words.empty()) {
    throw Error(ErrorCode::usage, "no command is given", "", "run \"kedge --help\" for the list");
  }
  const std::string& first = words.front();
  if (first == "--help" || first == "-h") {
    print(help_overview());
    return 0;
  }
  if (first == "--version" || first == "-V") {
    print(version_text(torch));
    return 0;
  }
  const Command* command = find_command(first);
  if (command == nullptr) unknown_command(first);
  auto arguments = parse(*command, {words.begin() + 1, words.end()});
  if (!arguments) {
    print(help_for(*command));
    return 0;
  }
  if (torch == nullptr && command->needs_with != nullptr && command->needs_with(*arguments) == Needs::torch) {
    exec_torch(words);
  }
  arguments->set_torch(torch);
  ranks = started_ranks(*command);
  arguments->set_ranks(ranks.get());
  const bool speaks = ranks == nullptr || ranks->is_root();
  if (!command->common.empty()) set_quiet(arguments->flag("quiet") || !speaks);
  return command->run(*arguments);
}

// One line, whatever a file's name or content brings in; in one piece, as far as it fits: other ranks write too.
void say(int rank, std::string_view message, std::string_view detail = {}) noexcept {
  char line[4096];
  std::size_t size = 0;
  const auto put = [&](char c) {
    if (size == sizeof line) {
      std::fwrite(line, 1, size, stderr);
      size = 0;
    }
    line[size++] = c;
  };
  char who[32];
  std::snprintf(who, sizeof who, rank > 0 ? "kedge: rank %d: " : "kedge: ", rank);
  for (const char c : std::string_view(who)) put(c);
  for (const std::string_view part : {message, detail}) {
    for (const char c : part) put(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
  }
  put('\n');
  std::fwrite(line, 1, size, stderr);
}

int guarded(const std::vector<std::string>& words, const TorchPart* torch,
            std::unique_ptr<Communicator>& ranks) noexcept {
  const auto complain = [&](std::string_view message, std::string_view detail = {}) {
    say(ranks == nullptr ? 0 : ranks->rank(), message, detail);
  };
  try {
    const int code = dispatch(words, torch, ranks);
    flush_output();
    return code;
  } catch (const Error& error) {
    complain(error.what());
    return error.exit_code();
  } catch (const BrokenPipe&) {
    return kBrokenPipe;
  } catch (const std::bad_alloc&) {
    complain("out of memory: the model, its context or the batch needs more than this machine has to give");
    return kOutOfMemory;
  } catch (const std::exception& error) {
    complain("this is a bug in kedge, please report it: ", error.what());
    return kBug;
  } catch (...) {
    complain("this is a bug in kedge, please report it: an unknown exception");
    return kBug;
  }
}

}  // namespace

int run(int argc, char** argv, const TorchPart* torch) noexcept {
  std::signal(SIGPIPE, SIG_IGN);
  install_interrupt_handler();
  std::unique_ptr<Communicator> ranks;
  const int code = guarded({argv + (argc > 0 ? 1 : 0), argv + argc}, torch, ranks);
  if (code != 0 && ranks != nullptr) ranks->abort(code);  // the others would wait for this one
  return code;
}

}  // namespace kedge::cli
