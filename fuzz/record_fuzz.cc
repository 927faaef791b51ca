// The record of a claim in an evidence bundle on arbitrary bytes: accepted or Error; what is accepted is judged.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "claims/evidence.h"
#include "kedge/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const kedge::ClaimRecord record =
        kedge::parse_record(kedge::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz");
    kedge::Claim claim;
    claim.effect = kedge::Effect::ratio;
    kedge::estimate(claim, record.samples);
  } catch (const kedge::Error&) {
  }
  return 0;
}
