// What a quantization did, by role and scheme, for its report.
#pragma once

#include <vector>

#include "kedge/quantize.h"
#include "ptq/module_error.h"
#include "ptq/plan.h"

namespace kedge {

/// Fills groups, sizes and bits per weight. errors: [modules of the plan], empty in a dry run.
void summarize(const QuantPlan& plan, const std::vector<ModuleError>& errors, QuantizeReport& report);

}  // namespace kedge
