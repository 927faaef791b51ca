#include "cli/commands.h"

namespace kedge::cli {
namespace {

constexpr const Command* kCommands[] = {
    &run_command,       &quantize_command,   &audit_command, &ablate_command, &train_command,
    &trace_command,     &perplexity_command, &eval_command,  &verify_command, &inspect_command, &tokenize_command,
    &tokenizer_command, &bench_command,      &mnist_command, &completion_command, &help_command,
};

}  // namespace

std::span<const Command* const> commands() noexcept { return kCommands; }

const Command* find_command(std::string_view name) noexcept {
  for (const Command* command : kCommands) {
    if (name == command->name) return command;
  }
  return nullptr;
}

}  // namespace kedge::cli
