#include "ptq/mixed_precision.h"

#include <utility>

#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::pair<const char*, BitsPer> kBitsPer[] = {
    {"model", BitsPer::model}, {"layer", BitsPer::layer}, {"expert", BitsPer::expert}};
constexpr std::pair<const char*, Sensitivity> kSensitivities[] = {{"error", Sensitivity::error},
                                                                  {"kld", Sensitivity::kld},
                                                                  {"routing", Sensitivity::routing},
                                                                  {"both", Sensitivity::both}};

template <class T, std::size_t N>
T value_in(const std::pair<const char*, T> (&rows)[N], std::string_view name, const char* what) {
  std::string known;
  for (const auto& [row, value] : rows) {
    if (name == row) return value;
    known += (known.empty() ? "" : ", ") + std::string(row);
  }
  throw Error(ErrorCode::usage, std::string(what) + " \"" + std::string(name) + "\"", "one of " + known);
}

template <class T, std::size_t N>
const char* name_in(const std::pair<const char*, T> (&rows)[N], T value) noexcept {
  for (const auto& [name, row] : rows) {
    if (row == value) return name;
  }
  return "";
}

}  // namespace

BitsPer parse_bits_per(std::string_view name) { return value_in(kBitsPer, name, "there are no bits per"); }
Sensitivity parse_sensitivity(std::string_view name) {
  return value_in(kSensitivities, name, "there is no sensitivity");
}
const char* bits_per_name(BitsPer per) noexcept { return name_in(kBitsPer, per); }
const char* sensitivity_name(Sensitivity sensitivity) noexcept { return name_in(kSensitivities, sensitivity); }

}  // namespace kedge
