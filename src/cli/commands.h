// One constant per command, each in its own file; commands.cc lists them.
#pragma once

#include "cli/command.h"

namespace kedge::cli {

extern const Command run_command, quantize_command, audit_command, ablate_command, train_command, trace_command,
    perplexity_command, eval_command, verify_command, inspect_command, tokenize_command, tokenizer_command, bench_command,
    mnist_command, completion_command, help_command;

}  // namespace kedge::cli
