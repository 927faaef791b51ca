#include "claims/tracks.h"

#include <fmt/format.h>

#include <set>

#include "claims/tracks/rows.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr const char* kNoServer = "kedge has no server yet";

constexpr TrackRow missing(const char* track, const char* subject, const char* shows, const char* what) {
  return {track, subject, shows, what, false, nullptr, nullptr};
}

// The order is that of a run: short tracks first.
constexpr TrackRow kRows[] = {
    {"T", "decoder", "parity with other people's goldens, layer by layer", nullptr, false, check_parity, run_parity},
    {"T", "mcqsmoe", "parity and weights of the layer routed by error", nullptr, false, check_mcqsmoe_parity,
     run_mcqsmoe_parity},
    {"Q", "mcqsmoe", "quality of the layer routed by error", nullptr, true, check_mcqsmoe_quality, run_mcqsmoe_quality},
    {"QS", "mcqsmoe", "the same over seeds", nullptr, true, check_mcqsmoe_quality, run_mcqsmoe_quality},
    {"R", "quantize", "routing of quantized models, method against method", nullptr, false, check_routing, run_routing},
    {"R", "quantize-tuned", "the same of methods that tune by gradients", nullptr, true, check_routing, run_routing},
    {"X", "eval", "benchmarks, and trust in confidences", nullptr, false, check_external, run_external},
    {"X", "diffusion", "benchmarks answered by masked diffusion", nullptr, true, check_external, run_external},
    {"X", "mnist", "quality and size of the MNIST networks", nullptr, true, check_mnist, run_mnist},
    {"P", "mnist", "speed of the MNIST networks", nullptr, true, check_mnist, run_mnist},
    {"P", "decoder", "speed beside the machine's limits", nullptr, false, check_speed, run_speed},
    {"PS", "decoder", "speed against speed, in interleaved pairs", nullptr, false, check_speed, run_speed},
    {"P", "mcqsmoe", "speed of the layer routed by error", nullptr, false, check_mcqsmoe_speed, run_mcqsmoe_speed},
    {"PS", "mcqsmoe", "its paths in interleaved pairs", nullptr, false, check_mcqsmoe_speed, run_mcqsmoe_speed},
    {"DB", "mcqsmoe", "the layer against dense layers", nullptr, false, check_mcqsmoe_speed, run_mcqsmoe_speed},
    missing("S", "server", "latency under load", kNoServer),
};

}  // namespace

std::span<const TrackRow> verify_tracks() noexcept { return kRows; }

const TrackRow& find_track(const Claim& claim, std::span<const TrackRow> rows) {
  std::string tracks, subjects;
  std::set<std::string> named;
  const TrackRow* only = nullptr;
  for (const TrackRow& row : rows) {
    if (named.insert(row.track).second) tracks += (tracks.empty() ? "" : ", ") + std::string(row.track);
    if (claim.track != row.track) continue;
    if (claim.subject == row.subject) return row;
    subjects += (subjects.empty() ? "" : ", ") + std::string(row.subject);
    if (only == nullptr && row.missing == nullptr) only = &row;
  }
  if (claim.subject.empty() && only != nullptr) return *only;
  const std::string file = claim.file.string();
  if (subjects.empty()) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: there is no track \"{}\"", file, claim.track),
                "one of " + tracks);
  }
  throw Error(ErrorCode::bad_file, fmt::format("{}: track {} has no subject \"{}\"", file, claim.track, claim.subject),
              "one of " + subjects);
}

}  // namespace kedge
