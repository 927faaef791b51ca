// The keys of a method in an ablation's recipe: the fields of QuantizeOptions under the names of `kedge quantize`'s
// flags.
//
// A table, so that a new option is one new row; a test holds it against the command's flags.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "kedge/quantize.h"

namespace kedge {

using MethodField = std::variant<bool*, std::optional<bool>*, std::int64_t*, double*, std::string*, std::vector<std::filesystem::path>*,
                                 std::vector<QuantizeOverride>*>;

struct MethodKey {
  const char* name;
  MethodField (*field)(QuantizeOptions& options);
};

std::span<const MethodKey> method_keys() noexcept;
/// nullptr when there is none.
const MethodKey* find_method_key(std::string_view name) noexcept;

/// Flags of `kedge quantize` that no method sets, with the sentence that says why.
struct ForeignKey {
  const char* name;
  const char* to_do;
};
std::span<const ForeignKey> foreign_keys() noexcept;

/// What differs from QuantizeOptions' defaults, by key; calibration data is not among it.
nlohmann::ordered_json method_settings(const QuantizeOptions& options);

}  // namespace kedge
