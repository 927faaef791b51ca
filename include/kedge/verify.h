// kedge verify: registered claims are measured, judged and written down with what they rest on.
//
// A claim (docs/formats/claim.md) says before the run what is measured, how often, with which test, and what would
// refute it. A run leaves an evidence bundle (docs/formats/evidence-bundle.md), from which every verdict can be
// computed again, and which passes only if all of eight gates do.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kedge/options.h"
#include "kedge/train.h"

namespace kedge {

class LayerTunerFactory;

struct VerifyOptions {
  std::filesystem::path claims = "claims";  ///< a folder of claims, or one
  std::vector<std::string> tracks;          ///< the only ones to run; empty: all
  std::string profile = "full";             ///< "quick": the sizes of the claims' [quick]
  std::filesystem::path data;               ///< the folder with the four files of MNIST; empty: its claims do not run
  std::filesystem::path out;                ///< folder of the bundle
  bool resume = false;         ///< go on with a run that was stopped: same claims, same profile, same build
  bool allow_not_run = false;  ///< a claim whose subject kedge does not have does not fail gate B
  RuntimeOptions runtime;
};

struct VerifyGate {
  char letter = 'A';
  std::string name, checks;           ///< what it looks at, one sentence
  std::vector<std::string> failures;  ///< a sentence for each; empty: it passes
  bool passed() const noexcept { return failures.empty(); }
};

struct VerifyClaim {
  std::string name, track, statement, claimed_by;
  std::string verdict;   ///< "upheld", "refuted", "inconclusive", "not run"
  std::string measured;  ///< "−46.7 % [−48.9, −44.4]"; of those that did not run the reason
  std::string required;  ///< "<= −40 %"
  std::int64_t n = 0;
};

struct VerifyReport {
  std::vector<VerifyClaim> claims;  ///< those that did not run first
  std::vector<VerifyGate> gates;    ///< A to H
  std::string summary_json;         ///< schema kedge.verify/1
  bool passed() const noexcept;     ///< every gate
};

/// Errors: not_found, bad_file (a claim), usage, exists (out holds a bundle and resume is not set), mismatch (resume
/// with other claims or another build), interrupted (what is done is kept). What a single track throws makes its claims
/// "not run", with the error as the reason.
/// tuners, train: what kedge-torch has.
VerifyReport verify(const VerifyOptions& options, LayerTunerFactory* tuners = nullptr, TrainFunction train = nullptr);

/// Every verdict and figure of a bundle computed anew, and its gates. claims: the folder that its claims must still be
/// equal to; empty: the bundle's own copies alone. Error(not_found), Error(bad_file).
VerifyReport check_bundle(const std::filesystem::path& bundle, const std::filesystem::path& claims = {},
                          bool allow_not_run = false);

/// What moved from bundle a to bundle b.
struct VerifyChange {
  std::string name, verdict_a, verdict_b;  ///< empty: the claim is not there
  std::string effect_a, effect_b;
  double change = 0, low = 0, high = 0;  ///< b - a (of ratios b / a - 1), 95 % interval; NaN where there is none
  bool relative = false;                 ///< change is of ratios
  bool same_claim = true;                ///< by hash
  bool moved() const noexcept { return low > 0 || high < 0; }
};
std::vector<VerifyChange> compare_bundles(const std::filesystem::path& a, const std::filesystem::path& b);

std::string verify_text(const VerifyReport& report);                 ///< for a terminal
std::string compare_text(const std::vector<VerifyChange>& changes);  ///< for a terminal
std::string compare_json(const std::vector<VerifyChange>& changes);  ///< an array
/// The page of docs/claims.md, from a bundle's summary.json. Error(bad_file).
std::string claims_document(const std::string& summary_json);
/// The same as a LaTeX document (pdflatex; geometry, longtable, textcomp), with what is proven and what is not.
/// Error(bad_file).
std::string latex_report(const std::string& summary_json);

}  // namespace kedge
