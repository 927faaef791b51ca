// A claim: what is said, how it is measured, and what would refute it; one TOML file each (docs/formats/claim.md).
//
// It is registered by its file's bytes before anything runs: their SHA-256 goes into the record of the run, so that a
// claim that was edited afterwards is no longer the one that was tested.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/toml_file.h"

namespace kedge {

/// What is judged, from the samples of a run.
enum class Effect {
  value,            ///< mean of "value" (track X: or the metric over all records, such as auroc)
  difference,       ///< mean of subject - baseline
  ratio,            ///< geometric mean of subject / baseline
  relative_change,  ///< ratio - 1
};
/// Where the uncertainty comes from. A cluster is what is independent of the others: a seed, a window of time, a
/// record.
enum class ClaimTest {
  student_t,  ///< over clusters' means (logarithms for ratios)
  bootstrap,  ///< clusters drawn with replacement
  every,      ///< of each single sample; one counterexample refutes
};
enum class Relation { at_most, at_least };

/// What a profile changes: how much is measured, never what is claimed.
struct ClaimSize {
  std::int64_t n = 0;                ///< samples that the run must reach
  std::vector<std::uint64_t> seeds;  ///< empty where nothing is drawn
  std::int64_t windows = 0;          ///< separated stretches of time over which speed is measured; 0: not timed
};

struct Claim {
  std::string name;    ///< the file's, without ".toml"
  std::string text;    ///< the file's bytes
  std::string sha256;  ///< of them
  std::filesystem::path file;

  std::string statement, claimed_by, source;
  std::string track, subject, metric, baseline;
  Effect effect = Effect::value;
  ClaimTest test = ClaimTest::student_t;
  Relation relation = Relation::at_least;
  double threshold = 0;   ///< upheld: the effect is on this side of it
  double refuted_at = 0;  ///< refuted: the effect is beyond it on the other side
  double confidence = 0.95;
  std::string family;          ///< claims of one family share an error rate (Holm); empty: alone
  bool must_be_upheld = true;  ///< gate = "upheld"; else any verdict is a result ("verdict": others' claims under test)
  ClaimSize full, quick;
  TomlValue setup;  ///< the table [setup], which the track reads; empty when there is none
};

const char* effect_name(Effect) noexcept;      ///< "value", "difference", "ratio", "relative-change"
const char* test_name(ClaimTest) noexcept;     ///< "student-t", "bootstrap", "every"
const char* relation_name(Relation) noexcept;  ///< "<=", ">="

/// Error(bad_file) "FILE:LINE: ..." for anything that the file has wrong; [setup] is left to its track.
Claim parse_claim(const std::string& text, const std::filesystem::path& file);
/// The .toml files of a folder by name, or one file. Error(not_found) where there is none.
std::vector<Claim> read_claims(const std::filesystem::path& file_or_folder);

}  // namespace kedge
