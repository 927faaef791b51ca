// The tasks and the small sets of records that are part of the program: tasks/*.toml, tasks/data/*.jsonl.
#pragma once

#include <span>

#include "base/embedded_file.h"

namespace kedge {

std::span<const EmbeddedFile> embedded_task_files();
std::span<const EmbeddedFile> embedded_task_data();

}  // namespace kedge
