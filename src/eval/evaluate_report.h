// Results of kedge eval as JSON and as sample files (docs/formats/eval.md).
#pragma once

#include <span>
#include <string>

#include "base/exec.h"
#include "eval/outcome.h"
#include "eval/plan.h"
#include "kedge/evaluate.h"

namespace kedge {

/// Envelope kedge.eval/1; hashes the model's files.
std::string evaluate_json(const EvaluateResult& result, const EvalPlan& plan, const LoadOptions& options);
/// samples_NAME.jsonl
std::string samples_file_name(const std::string& unit);
/// JSON lines, one per record, with lm-evaluation-harness's keys.
std::string samples_text(const EvalUnit& unit, std::span<const SampleOutcome> outcomes);

}  // namespace kedge
