// The eight gates of an evidence bundle. Each looks at values, not at whether a file is there.
#pragma once

#include <filesystem>
#include <vector>

#include "claims/bundle.h"
#include "kedge/verify.h"

namespace kedge {

struct GateOptions {
  std::filesystem::path claims;  ///< where the claims are registered; empty: only the bundle's own copies are known
  bool allow_not_run = false;
  bool sealed = true;  ///< gates.json and index.html are written; a bundle that is being closed does not have them yet
};

/// A to H. docs/verify.md says what each stands for.
std::vector<VerifyGate> check_gates(const Bundle& bundle, const BundleVerdicts& verdicts, const GateOptions& options);

std::string gates_json(const std::vector<VerifyGate>& gates);

}  // namespace kedge
