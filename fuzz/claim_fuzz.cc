// A claim's TOML on arbitrary bytes, and what its track makes of [setup]: accepted or Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "claims/claim.h"
#include "claims/tracks.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const kedge::Claim claim = kedge::parse_claim({reinterpret_cast<const char*>(data), size}, "claims/fuzz.toml");
    const kedge::TrackRow& row = kedge::find_track(claim, kedge::verify_tracks());
    if (row.check != nullptr) row.check(claim);
  } catch (const kedge::Error&) {
  }
  return 0;
}
