#include "ptq/mixed_precision.h"

#include <utility>

#include "ptq/named_values.h"

namespace kedge {
namespace {

constexpr std::pair<const char*, BitsPer> kBitsPer[] = {
    {"model", BitsPer::model}, {"layer", BitsPer::layer}, {"expert", BitsPer::expert}};
constexpr std::pair<const char*, Sensitivity> kSensitivities[] = {{"error", Sensitivity::error},
                                                                  {"kld", Sensitivity::kld},
                                                                  {"routing", Sensitivity::routing},
                                                                  {"both", Sensitivity::both}};

}  // namespace

BitsPer parse_bits_per(std::string_view name) { return value_in(kBitsPer, name, "choice of bits per"); }
Sensitivity parse_sensitivity(std::string_view name) {
  return value_in(kSensitivities, name, "sensitivity");
}
const char* bits_per_name(BitsPer per) noexcept { return name_in(kBitsPer, per); }
const char* sensitivity_name(Sensitivity sensitivity) noexcept { return name_in(kSensitivities, sensitivity); }

}  // namespace kedge
