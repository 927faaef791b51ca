// Finding and comparing the answer in what a model wrote (generate_until).
#pragma once

#include <string>

#include "eval/task.h"

namespace kedge {

/// filter: a name of task.filters, or "none". 1 where the answer found in `text` equals `target`: both without what
/// task.regexes_to_ignore match, in lower case where task.ignore_case. A filter that finds nothing gives 0.
double exact_match(const EvalTask& task, const std::string& filter, const std::string& text, const std::string& target);

}  // namespace kedge
