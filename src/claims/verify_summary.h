// What a bundle says in words and tables: files that are computed from its protocol, environment and records alone, so
// that they can be computed again and compared byte by byte.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "claims/bundle.h"
#include "kedge/verify.h"

namespace kedge {

std::string effect_text(const Claim& claim, double effect);  ///< "−46.7 %", "5.21 times", "0.00073"
/// "−46.7 % [−48.9, −44.4]"; of a test of every sample "at most 0.00073".
std::string measured_text(const Claim& claim, const Estimate& estimate);
std::string required_text(const Claim& claim);  ///< "<= −40 %, refuted above −30 %"

/// Of summary.json: what ran where, and how many claims have which verdict.
std::string run_sentence(const Json& summary);
std::string counts_sentence(const Json& summary);
/// Error(bad_file) where `text` is no summary.json.
Json parse_summary(const std::string& text);

/// Indices into the protocol's claims: not run, refuted, inconclusive, upheld; by name within.
std::vector<std::size_t> reading_order(const Bundle& bundle, const BundleVerdicts& verdicts);
std::vector<VerifyClaim> claim_rows(const Bundle& bundle, const BundleVerdicts& verdicts);

/// summary.json, summary.md, claims.csv, claims.md, csv/CLAIM.csv: their contents by path within the bundle.
std::map<std::string, std::string> derived_files(const Bundle& bundle, const BundleVerdicts& verdicts);

/// The page index.html.
std::string bundle_page(const Bundle& bundle, const BundleVerdicts& verdicts, const std::vector<VerifyGate>& gates);

}  // namespace kedge
